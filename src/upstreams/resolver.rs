//! Names to addresses, asynchronously. A trait, so that tests and other ways of discovery can stand in.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;

/// Asks for all addresses of a name.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses, in the order of preference. May be slow; the caller bounds it.
    ///
    /// # Errors
    /// What the operating system said.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system's resolver (`getaddrinfo`), on the runtime's blocking threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, port)).await?.collect())
    }
}
