//! Starts the data plane: Pingora's proxy behind the door, on a listener that is already bound.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::server::configuration::ServerConf;
use pingora_proxy::http_proxy;

use super::tls::Acceptor;
use crate::proxy::{self, Gateway};

/// What an HTTP/2 client may send before it is acknowledged: per stream, and per connection. The protocol's 64 KiB make
/// a long prompt wait for a round trip per 64 KiB.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of answers that wait in memory for an HTTP/2 stream's client to read them; h2's own 400 KiB, a hundred times per
/// connection, are too much to give to who does not read.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// How long an HTTP/2 connection without a stream stays; HTTP/1.1 connections have as long by Pingora's default.
const H2_IDLE: Duration = Duration::from_secs(60);

/// How the data plane is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// Threads that upstream connections are kept for.
    pub(super) threads: usize,
    /// Idle connections to endpoints that are kept for reuse.
    pub(super) kept_connections: usize,
    /// What clients can hold open at the door.
    pub(super) door: proxy::door::Bounds,
}

/// Runs the data plane until `closing` says so; requests that run go on.
pub(super) async fn run(
    gateway: Gateway,
    listener: TcpListener,
    service: Service,
    tls: Option<Acceptor>,
    closing: proxy::door::Closing,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let conf = Arc::new(ServerConf {
        threads: service.threads,
        upstream_keepalive_pool_size: service.kept_connections,
        // How often is the gateway's own decision; this only ends a loop that would not end.
        max_retries: usize::from(u8::MAX),
        ..ServerConf::default()
    });
    let mut app = http_proxy(&conf, gateway);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(H2_IDLE);
    app.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buffer_size(H2_SEND_BUFFER);
    app.h2_options = Some(h2);
    proxy::door::serve(listener, Arc::new(app), service.door, tls, closing).await;
    Ok(())
}
