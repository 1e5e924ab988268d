//! The rival of scripts/bench-proxy: the least proxy that Pingora can be, one upstream and no opinions.
//!
//! `bare_pingora LISTEN UPSTREAM`, both `ADDRESS:PORT`; one thread. It has the gateway's allocator, without huge pages too,
//! and as many kept connections, so that what is measured is what the gateway adds.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, Result};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = &arguments[..] else {
        anyhow::bail!("usage: bare_pingora LISTEN UPSTREAM")
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(upstream.parse()?));
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
