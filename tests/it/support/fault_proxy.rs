//! A TCP relay between the gateway and an upstream that misbehaves on request, and can change its mind while it runs.
//!
//! A fault holds from the next piece of bytes on, also for connections that are open already.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Each piece of an answer comes so much later.
    Delay(Duration),
    /// Answers come so many bytes at a time, one lot per interval.
    Drip(usize, Duration),
    /// A connection ends properly (FIN) after so many bytes of answers.
    CutAfter(u64),
    /// A connection is reset (RST) after so many bytes of answers.
    ResetAfter(u64),
    /// Connections are accepted and read, and nothing goes either way until it is over.
    Blackhole,
    /// Nobody listens; open connections are reset, as when the process is killed.
    Refuse,
}

/// What precedes a request's own id in its body.
const MARK: &str = "\"user\":\"";

/// A running relay. Its listener closes with it.
pub(crate) struct FaultProxy {
    /// Where it listens; kept over [`Fault::Refuse`].
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    fault: watch::Sender<Fault>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    /// How often each body came, by its `user`.
    bodies: Mutex<HashMap<String, u32>>,
    /// Connections that a fault ended, and answers that one held up.
    struck: AtomicU64,
}

impl FaultProxy {
    /// Starts one before `target`, without a fault.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap());
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            connections: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            bodies: Mutex::default(),
            struck: AtomicU64::new(0),
        });
        let (fault, told) = watch::channel(Fault::None);
        let task = tokio::spawn(accept(listener, addr, told, Arc::clone(&shared)));
        Self { addr, shared, fault, task }
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Misbehaves so from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Sends new connections to another upstream.
    pub(crate) fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How often a fault struck so far: connections cut or reset, requests and answers held up by a stall.
    pub(crate) fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// Bytes relayed so far: requests, answers.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::Relaxed), self.shared.down.load(Ordering::Relaxed))
    }

    /// How often each body came whole, by its `user`, whatever became of it.
    pub(crate) fn bodies(&self) -> HashMap<String, u32> {
        self.shared.bodies.lock().clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds again what a refusal has given up; the system lets nobody else have the port while connections linger.
fn listen(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket.listen(1024).unwrap()
}

async fn accept(listener: TcpListener, addr: SocketAddr, mut fault: watch::Receiver<Fault>, shared: Arc<Shared>) {
    let mut listener = Some(listener);
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::Refuse {
            // Who has connected and was not accepted yet dies too.
            let dying = async {
                while let Some(Ok((mut client, _))) = accepted(&listener).await {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        note_unread(&mut client, &shared).await;
                        let _reset = client.set_zero_linger();
                    });
                }
            };
            let _died = tokio::time::timeout(LAST_GASP, dying).await;
            listener = None;
            if fault.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = listener.get_or_insert_with(|| listen(addr));
        tokio::select! {
            accepted = open.accept() => {
                let Ok((client, _)) = accepted else { return };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(relay(client, fault.clone(), Arc::clone(&shared)));
            }
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

async fn accepted(listener: &Option<TcpListener>) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => None,
    }
}

/// Relays a connection until one side ends it, or a fault does.
async fn relay(mut client: TcpStream, fault: watch::Receiver<Fault>, shared: Arc<Shared>) {
    let target = *shared.target.lock();
    let Ok(server) = TcpStream::connect(target).await else {
        note_unread(&mut client, &shared).await;
        let _reset = client.set_zero_linger();
        return;
    };
    let _nodelay = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let reset = {
        let mut killing = fault.clone();
        let killed = async { killing.wait_for(|fault| *fault == Fault::Refuse).await.map(drop).is_ok() };
        let up = pass_up(&mut client_reads, &mut server_writes, fault.clone(), &shared);
        let down = pass_down(&mut server_reads, &mut client_writes, fault.clone(), &shared);
        tokio::select! {
            reset = killed => reset,
            () = up => false,
            reset = down => reset,
        }
    };
    note_unread(&mut client_reads, &shared).await;
    if reset {
        shared.struck.fetch_add(1, Ordering::Relaxed);
        for half in [client_writes, server_writes] {
            let _reset = half.as_ref().set_zero_linger();
            // Without the polite end that dropping it would send first.
            half.forget();
        }
    }
}

/// Requests, whole pieces at a time.
async fn pass_up(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut fault: watch::Receiver<Fault>, shared: &Shared) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        note_bodies(&buffer[..count], shared);
        if fault.wait_for(|fault| *fault != Fault::Blackhole).await.is_err() {
            return;
        }
        shared.up.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Answers, as the fault has it. Returns whether the connection is to be reset.
async fn pass_down(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut fault: watch::Receiver<Fault>, shared: &Shared) -> bool {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0_u64;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let now = *fault.borrow_and_update();
            let piece = match now {
                Fault::None | Fault::Refuse => rest.len(),
                Fault::Delay(time) => {
                    tokio::time::sleep(time).await;
                    rest.len()
                }
                Fault::Drip(bytes, time) => {
                    tokio::time::sleep(time).await;
                    bytes.clamp(1, rest.len())
                }
                // A reset is counted where it is done.
                Fault::ResetAfter(bytes) if passed >= bytes => return true,
                Fault::CutAfter(bytes) if passed >= bytes => {
                    shared.struck.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                Fault::CutAfter(bytes) | Fault::ResetAfter(bytes) => rest.len().min(usize::try_from(bytes - passed).unwrap()),
                Fault::Blackhole => {
                    shared.struck.fetch_add(1, Ordering::Relaxed);
                    if fault.changed().await.is_err() {
                        return false;
                    }
                    continue;
                }
            };
            let (out, later) = rest.split_at(piece);
            if to.write_all(out).await.is_err() {
                return false;
            }
            passed += out.len() as u64;
            shared.down.fetch_add(out.len() as u64, Ordering::Relaxed);
            rest = later;
        }
    }
    false
}

/// How long a connection that dies is still read from.
const LAST_GASP: Duration = Duration::from_millis(50);

/// Notes what arrives at a connection that dies and will be answered by nobody: its sender cannot know that. Connections
/// that were idle when the others died find out in peace; without that, a request written to one of them in that very
/// moment would have gone up unseen.
async fn note_unread(from: &mut (impl AsyncRead + Unpin), shared: &Shared) {
    let mut buffer = vec![0; 16 << 10];
    let reading = async {
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            note_bodies(&buffer[..count], shared);
        }
    };
    let _died = tokio::time::timeout(LAST_GASP, reading).await;
}

/// Bodies are small and written whole, so an id is not looked for across pieces.
fn note_bodies(piece: &[u8], shared: &Shared) {
    let text = String::from_utf8_lossy(piece);
    for (at, found) in text.match_indices(MARK) {
        let id = text[at + found.len()..].split('"').next().unwrap_or_default();
        *shared.bodies.lock().entry(id.to_owned()).or_default() += 1;
    }
}
