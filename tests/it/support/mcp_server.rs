//! An MCP server over bare sockets that writes down every byte it gets, and answers as the test has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::eventually;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Request line and fields.
    pub(crate) head: String,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What goes over the wire, in order.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These bytes.
    Send(String),
    /// Nothing until the test calls [`McpServer::go_on`].
    Wait,
    /// The end of the connection.
    Close,
    /// Nothing until the peer closes the connection.
    UntilGone,
}

type Script = Box<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    bytes: Mutex<Vec<u8>>,
    go_on: Notify,
    gone: Mutex<usize>,
}

/// A running server; it ends with its value.
pub(crate) struct McpServer {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl McpServer {
    /// Starts one that answers by `script`.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            bytes: Mutex::default(),
            go_on: Notify::new(),
            gone: Mutex::default(),
        });
        let all = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { addr, shared, task }
    }

    /// The URL to register.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// The last of them.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    /// Whether these bytes ever came.
    pub(crate) fn got(&self, needle: &str) -> bool {
        memchr::memmem::find(&self.shared.bytes.lock(), needle.as_bytes()).is_some()
    }

    /// Lets one [`Step::Wait`] pass.
    pub(crate) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until_seen(&self, count: usize) {
        eventually("requests at the server", Duration::from_secs(10), || async {
            self.shared.seen.lock().len() >= count
        })
        .await;
    }

    /// Waits until so many connections were closed by the peer while they were to stay open.
    pub(crate) async fn until_gone(&self, count: usize) {
        eventually("connections closed", Duration::from_secs(10), || async {
            *self.shared.gone.lock() >= count
        })
        .await;
    }
}

impl Drop for McpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A plain answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Step> {
    let mut head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    vec![Step::Send(format!("{head}\r\n{body}"))]
}

/// A JSON answer.
pub(crate) fn json_answer(body: &Value) -> Vec<Step> {
    answer(200, &[("content-type", "application/json")], &body.to_string())
}

/// The head of an event stream; what follows are [`chunk`]s.
pub(crate) fn stream_head(headers: &[(&str, &str)]) -> Step {
    let mut head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\ntransfer-encoding: \
                    chunked\r\n"
        .to_owned();
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    Step::Send(head + "\r\n")
}

/// A piece of a stream.
pub(crate) fn chunk(text: &str) -> Step {
    Step::Send(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// A stream's end.
pub(crate) fn last_chunk() -> Step {
    Step::Send("0\r\n\r\n".to_owned())
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(seen) = read(&mut stream, &mut buffer, &shared).await {
        shared.seen.lock().push(seen.clone());
        for step in (shared.script)(&seen) {
            match step {
                Step::Send(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Step::Wait => shared.go_on.notified().await,
                Step::Close => return,
                Step::UntilGone => {
                    let mut rest = [0; 1024];
                    while let Ok(1..) = stream.read(&mut rest).await {}
                    *shared.gone.lock() += 1;
                    return;
                }
            }
        }
    }
}

/// The next request.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, shared: &Shared) -> Option<Seen> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let seen = Seen { head, body: Vec::new() };
            let length: usize = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some(Seen { body, ..seen });
            }
        }
        let mut piece = [0; 8192];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        shared.bytes.lock().extend_from_slice(&piece[..count]);
        buffer.extend_from_slice(&piece[..count]);
    }
}
