//! An endpoint's address as Pingora's connectors want it: for the proxy and for the checks alike.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::chosen::Chosen;
use super::endpoint::Endpoint;

/// An idle connection is given up after this long, before the servers' own 75 s or so: one that is closed while a request
/// is on its way to it costs that request.
const IDLE: Duration = Duration::from_secs(60);

impl Chosen {
    /// The peer to connect to: address, TLS, connection group, connect timeouts and HTTP version are set. Read and write
    /// timeouts are the caller's.
    #[must_use]
    pub fn peer(&self) -> HttpPeer {
        self.endpoint().peer(self.addr())
    }
}

impl Endpoint {
    pub(super) fn peer(&self, addr: SocketAddr) -> HttpPeer {
        let https = self.https();
        let server_name = if https { self.server_name().to_owned() } else { String::new() };
        // An address, never a name: with a name this would block and unwrap.
        let mut peer = HttpPeer::new(addr, https, server_name);
        let connect = Duration::from_millis(u64::from(self.plan.connect_ms));
        peer.group_key = self.group_key();
        peer.options.connection_timeout = Some(connect);
        peer.options.total_connection_timeout = Some(connect);
        peer.options.idle_timeout = Some(IDLE);
        peer.options.alpn = if self.plan.http2 { ALPN::H2 } else { ALPN::H1 };
        peer
    }
}
