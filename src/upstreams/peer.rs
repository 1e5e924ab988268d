//! An endpoint's address as Pingora's connectors want it: for the proxy and for the checks alike.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::protocols::{ALPN, TcpKeepalive};
use pingora::upstreams::peer::HttpPeer;

use super::chosen::Chosen;
use super::endpoint::Endpoint;

/// How long an idle connection is kept for reuse: less than the five seconds after which the common Python servers
/// (uvicorn) close theirs, since a request that meets a closing connection cannot safely be sent again.
const IDLE_KEPT: Duration = Duration::from_secs(4);

impl Chosen {
    /// The peer to connect to: address, TLS, connection group, connect timeouts, keep-alive and HTTP version are set. Read
    /// and write timeouts are the caller's.
    #[must_use]
    pub fn peer(&self) -> HttpPeer {
        self.endpoint().peer(self.addr())
    }
}

impl Endpoint {
    pub(super) fn peer(&self, addr: SocketAddr) -> HttpPeer {
        let https = self.https();
        // Never empty with TLS: Pingora verifies no certificate without a name.
        let server_name = if https { self.server_name().to_owned() } else { String::new() };
        // An address, never a name: with a name Pingora resolves on the spot, blocking, and panics on failure.
        let mut peer = HttpPeer::new(addr, https, server_name);
        let connect = Duration::from_millis(u64::from(self.plan.connect_ms));
        peer.group_key = self.group_key();
        peer.options.connection_timeout = Some(connect);
        peer.options.total_connection_timeout = Some(connect);
        peer.options.idle_timeout = Some(IDLE_KEPT);
        peer.options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::ZERO,
        });
        peer.options.alpn = if self.plan.http2 { ALPN::H2 } else { ALPN::H1 };
        if let Some(trust) = self.material.read.load().as_deref() {
            trust.equip(&mut peer);
        }
        peer
    }
}
