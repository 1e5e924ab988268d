//! Serves the router over HTTP/1.1 within bounds: how long a head may take, how large it may be, how many connections there
//! are. `axum::serve` sets none of them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

use super::auth::Peer;

/// How much of everything one listener takes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// How long a request's head may take, and an idle connection may stay.
    pub head: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// How long running requests may take to finish after a shutdown began.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            head: Duration::from_secs(10),
            head_bytes: 32 * 1024,
            headers: 100,
            drain: Duration::from_secs(10),
        }
    }
}

/// What TLS is accepted with.
#[cfg(feature = "tls")]
pub(super) type Acceptor = tokio_rustls::TlsAcceptor;
/// None: this build speaks no TLS.
#[cfg(not(feature = "tls"))]
pub(super) type Acceptor = std::sync::Arc<std::convert::Infallible>;

/// How long to wait after the system refused a connection (out of file descriptors, for instance).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the door is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Door {
    /// It is.
    #[default]
    Open,
    /// It is about to close: every answer says that its connection closes after it.
    Closing,
    /// Nobody comes in, and connections without a request are closed.
    Closed,
}

/// Serves until `door` is closed or its sender is gone; TLS only, if `tls` is there. Then finishes the running requests.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, tls: Option<Acceptor>, mut door: watch::Receiver<Door>) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = door.wait_for(|door| *door == Door::Closed) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (router, door, tls) = (router.clone(), door.clone(), tls.clone());
                connections.spawn(async move {
                    // Requests on it are bounded by the envelope, heads by hyper; an error is the client's going away.
                    if let Err(error) = attend(stream, peer, router, bounds, tls, door).await {
                        tracing::debug!(%peer, %error, "management connection broke off");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a management connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let deadline = Instant::now() + bounds.drain;
    while let Ok(Some(_)) = tokio::time::timeout_at(deadline, connections.join_next()).await {}
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, impl Drop + use<>)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Small answers should not wait for more to send.
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    tls: Option<Acceptor>,
    door: watch::Receiver<Door>,
) -> Result<(), hyper::Error> {
    match tls {
        None => connection(stream, peer, router, bounds, door).await,
        #[cfg(feature = "tls")]
        Some(tls) => match tokio::time::timeout(bounds.head, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection(stream, peer, router, bounds, door).await,
            // Who cannot agree on TLS, or takes too long, is not served.
            Ok(Err(_)) | Err(_) => Ok(()),
        },
        #[cfg(not(feature = "tls"))]
        Some(never) => match *never {},
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut door: watch::Receiver<Door>,
) -> Result<(), hyper::Error> {
    let seen = door.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let (answer, seen) = (router.clone().oneshot(request), seen.clone());
        async move {
            let mut answer = answer.await;
            if let Ok(answer) = &mut answer
                && *seen.borrow() != Door::Open
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(bounds.head_bytes)
        .max_headers(bounds.headers)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = door.wait_for(|door| *door == Door::Closed) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
