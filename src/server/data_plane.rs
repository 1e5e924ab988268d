//! Starts the data plane: Pingora's proxy service on a listener that is already bound.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::TcpKeepalive;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service as _;
use pingora_proxy::http_proxy_service_with_name;

use crate::proxy::Gateway;

/// Bytes read from a client at a time. Pingora's 64 KiB are paid per open stream, whose client is silent for minutes.
const READ_BUFFER: usize = 8 * 1024;
/// Bytes gathered before a write to a client.
const WRITE_BUFFER: usize = 2 * 1024;
/// What an HTTP/2 client may send before it is acknowledged: per stream, and per connection. The protocol's 64 KiB make
/// a long prompt wait for a round trip per 64 KiB.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
/// Idle connections to endpoints that are kept for reuse, over all endpoints and threads.
const KEPT_CONNECTIONS: usize = 1024;

/// The type that Pingora hands listeners about in, which it does not name in public.
trait Guarded {
    type Inside;
}

impl<T> Guarded for Arc<Mutex<T>> {
    type Inside = T;
}

/// Runs the data plane until `shutdown` says so. Returns when nothing more is accepted; requests that run go on.
pub(super) async fn run(gateway: Gateway, listener: TcpListener, threads: usize, shutdown: ShutdownWatch) -> std::io::Result<()> {
    let address = listener.local_addr()?.to_string();
    listener.set_nonblocking(true)?;
    // Bound by us, so that port 0 is known and a taken port is a clear error; Pingora takes it as it would take a
    // listener from a process that it replaces.
    let mut inherited = <ListenFds as Guarded>::Inside::new();
    inherited.add(address.clone(), listener.into_raw_fd());

    let conf = Arc::new(ServerConf {
        threads,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        // How often is the gateway's own decision; this only ends a loop that would not end.
        max_retries: usize::from(u8::MAX),
        ..ServerConf::default()
    });
    let mut service = http_proxy_service_with_name(&conf, gateway, "data plane");
    if let Some(proxy) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
        let mut h2 = default_h2_options();
        h2.initial_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW);
        proxy.h2_options = Some(h2);
    }
    let mut socket = TcpSocketOptions::default();
    // A peer that vanished without a word is noticed within two minutes.
    socket.tcp_keepalive = Some(TcpKeepalive {
        idle: std::time::Duration::from_secs(60),
        interval: std::time::Duration::from_secs(10),
        count: 3,
        user_timeout: std::time::Duration::ZERO,
    });
    service.add_listener(
        ListenerConfig::tcp(address)
            .tcp_socket_options(socket)
            .l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)),
    );
    service.start_service(Some(Arc::new(Mutex::new(inherited))), shutdown, 1).await;
    Ok(())
}
