//! A server that answers as it is told, and can be told otherwise while it runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Status and body by path; no entry is a 404, status 0 is silence.
type Answers = Arc<Mutex<HashMap<String, (u16, String)>>>;

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    answers: Answers,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answers, heads) = (Answers::default(), Arc::<Mutex<Vec<String>>>::default());
        let (told, seen) = (Arc::clone(&answers), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&told), Arc::clone(&seen)));
            }
        });
        Self {
            addr,
            answers,
            heads,
            task,
        }
    }

    pub(super) fn answer(&self, path: &str, status: u16, body: &str) {
        self.answers.lock().insert(path.to_owned(), (status, body.to_owned()));
    }

    /// The heads of the requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    pub(super) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ended = self.task.await;
        self.addr
    }
}

async fn serve(mut stream: TcpStream, answers: Answers, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().push(head);
    let (status, body) = answers.lock().get(&path).cloned().unwrap_or((404, String::new()));
    if status == 0 {
        // Until the other side gives up.
        let _ended = stream.read_u8().await;
        return;
    }
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _sent = stream.write_all(answer.as_bytes()).await;
}
