//! The data plane's door: accepts connections, gives each a place, and hands it to Pingora.
//!
//! Pingora's own listener bounds neither how many connections there are nor how long a head may take, and peeks for HTTP/2
//! without a deadline: some hundred silent sockets used up every file descriptor. Here a connection has a place in a bounded
//! table; whoever waits longest without a request gives it up when somebody new comes.
//!
//! A connection's way: `First` (until its first head, from accepting on) → `Busy` (a request runs) → `Idle` (Pingora's keep-alive
//! timeout) → `Head` (from a further request's first byte) → `Busy`. `First` and `Head` last [`Bounds::head`] at most.

mod connection;
mod places;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp as _};
use pingora::protocols::TcpKeepalive;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::rescue::Fault;
use crate::id::RequestId;
use crate::llm::Dialect;
use connection::{Connection, Transport};
use places::{Place, Places};

/// What clients can hold open at the door.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once, at least 1; of the requests that an HTTP/2 connection runs, each beyond the first counts as one.
    pub connections: usize,
    /// Of them from one address (of IPv6, from one /64); 0 is as many as there are.
    pub per_address: usize,
    /// How long a head may take, from its first byte; of a connection's first, from accepting on.
    pub head: Duration,
}

/// What TLS is accepted with.
#[cfg(feature = "tls")]
pub type Acceptor = tokio_rustls::TlsAcceptor;
/// None: this build speaks no TLS.
#[cfg(not(feature = "tls"))]
pub type Acceptor = std::sync::Arc<std::convert::Infallible>;

/// A peer that vanished without a word is noticed within two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};

/// How long to wait after the system refused a connection (out of file descriptors, for instance).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The least time between two lines of log about connections that were turned away.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// How the door is told to close.
#[derive(Debug, Clone)]
pub struct Closing {
    /// Nothing more is accepted, and the next request on a connection is its last: HTTP/1.1 is answered `Connection: close`,
    /// HTTP/2 is told to go away.
    pub stops: ShutdownWatch,
    /// Connections without a request are closed.
    pub ends: ShutdownWatch,
}

/// Serves until `stops` is true or its sender is gone; TLS only, if `tls` is there. Returns when `ends` says so, too, or when
/// there are no connections any more; requests that run go on.
pub async fn serve<A>(listener: TcpListener, app: Arc<A>, bounds: Bounds, tls: Option<Acceptor>, closing: Closing)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Closing { mut stops, mut ends } = closing;
    let places = Places::new(bounds.connections, bounds.per_address);
    let (full, mut failed) = (Arc::<Mutex<Complaint>>::default(), Complaint::default());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stops.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match places.take(peer.ip()) {
                Some(place) => {
                    let guest = Guest::new(Arc::clone(&app), place, Arc::clone(&full));
                    tokio::spawn(attend(stream, peer, guest, bounds, tls.clone(), stops.clone()));
                }
                None => turned_away(&full),
            },
            Err(error) if !is_shortage(&error) => {}
            Err(error) => {
                failed.say(|times| warn!(%error, times, "cannot accept a connection"));
                // Somebody who does nothing has a descriptor.
                places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        _ = ends.wait_for(|end| *end) => {}
        () = places.are_empty() => {}
    }
    app.http_cleanup().await;
}

fn turned_away(full: &Mutex<Complaint>) {
    full.lock().say(|turned_away| {
        warn!(
            turned_away,
            "no place for further connections or streams: all have requests that run, or their address has its share"
        );
    });
}

/// Whether it is not the client's own error: that it has left the backlog, or that its network is down (accept(2)).
fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    !matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable | TimedOut
    )
}

/// Serves one connection, until it ends or has to make room.
async fn attend<A>(stream: TcpStream, peer: SocketAddr, guest: Arc<Guest<A>>, bounds: Bounds, tls: Option<Acceptor>, stops: ShutdownWatch)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let place = Arc::clone(&guest.arrival.place);
    let served = async {
        // Small answers do not wait for more to send. A socket that takes no options is one whose client is gone.
        if stream.set_nodelay(true).is_err() || set_tcp_keepalive(&stream, &KEEPALIVE).is_err() {
            return;
        }
        match tls {
            None => guest.serve(stream, peer, bounds, &stops).await,
            #[cfg(feature = "tls")]
            Some(tls) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(bounds.head, tls.accept(stream)).await {
                    guest.serve(stream, peer, bounds, &stops).await;
                }
            }
            #[cfg(not(feature = "tls"))]
            Some(never) => match *never {},
        }
    };
    tokio::select! {
        biased;
        () = place.asked_to_leave() => {}
        () = served => {}
    }
}

/// Where on its way a connection is.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

impl Stage {
    /// Nothing of its first request has been understood.
    const FIRST: u8 = 0;
    /// Between two requests.
    const IDLE: u8 = 1;
    /// A further request's head has begun.
    const HEAD: u8 = 2;
    /// A request runs.
    const BUSY: u8 = 3;

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// Busy => Idle; a connection's first request is awaited as `First`.
    fn waits(&self) {
        if self.get() == Self::BUSY {
            self.set(Self::IDLE);
        }
    }
}

/// Tells the door that a head has arrived whole: Pingora reads it, and says so to the gateway only.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    place: Arc<Place>,
    stage: Arc<Stage>,
}

impl Arrival {
    pub(super) fn head_is_whole(&self) {
        self.stage.set(Stage::BUSY);
        self.place.enter();
    }
}

/// Pingora's application as one connection sees it: it says when a request is awaited and when one runs.
struct Guest<A> {
    app: Arc<A>,
    arrival: Arrival,
    full: Arc<Mutex<Complaint>>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Guest<A> {
    fn new(app: Arc<A>, place: Place, full: Arc<Mutex<Complaint>>) -> Arc<Self> {
        let arrival = Arrival {
            place: Arc::new(place),
            stage: Arc::default(),
        };
        Arc::new(Self { app, arrival, full })
    }

    async fn serve<S: Transport>(self: &Arc<Self>, stream: S, peer: SocketAddr, bounds: Bounds, stops: &ShutdownWatch) {
        let connection = Connection::new(stream, peer, Arc::clone(&self.arrival.stage), bounds.head);
        // Nothing to be served again comes back over HTTP.
        let _ = self.process_new(Box::new(connection), stops).await;
    }
}

/// A stream of an HTTP/2 connection; many may run at once.
struct Running(Arc<Place>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.leave_others();
    }
}

/// How long the refusal of a stream may take to write.
const REFUSE_WITHIN: Duration = Duration::from_secs(2);

/// Answers a stream for which there is no place; where HTTP/1.1 would close the connection, its siblings here go on.
async fn refuse(mut session: ServerSession) {
    let fault = Fault::QueueFull {
        retry_after: Duration::from_secs(1),
    };
    let dialect = Dialect::of_path(session.req_header().uri.path());
    let body = fault.body(dialect, &RequestId::mint().to_string());
    let Ok(head) = fault.head(body.len()) else { return };
    // A client that does not take it has its stream reset all the same.
    let _ = tokio::time::timeout(REFUSE_WITHIN, session.write_error_response(head, body)).await;
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Guest<A> {
    async fn process_new_http(self: &Arc<Self>, mut session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        if session.is_http2() {
            // Its head is there; how long the connection may idle between streams is Pingora's `h2_idle_timeout`.
            self.arrival.stage.set(Stage::BUSY);
            if !self.arrival.place.enter_beside() {
                turned_away(&self.full);
                refuse(session).await;
                return None;
            }
            let _running = Running(Arc::clone(&self.arrival.place));
            return self.app.process_new_http(session, shutdown).await;
        }
        if self.arrival.stage.get() == Stage::BUSY {
            self.arrival.place.leave();
        }
        self.arrival.stage.waits();
        // Comes back to the gateway by `on_connection_reuse` once the head has been read.
        session.set_connection_user_context(Some(Box::new(self.arrival.clone())));
        self.app.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.app.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.app.server_options()
    }
}

/// Something that may go wrong ten thousand times a second, and is told once.
#[derive(Default)]
struct Complaint {
    told: Option<Instant>,
    untold: u64,
}

impl Complaint {
    /// Counts one more, and tells how many there were unless it has just been told.
    fn say(&mut self, tell: impl FnOnce(u64)) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= SAY_EVERY) {
            tell(self.untold);
            self.told = Some(Instant::now());
            self.untold = 0;
        }
    }
}

#[cfg(test)]
mod tests;
