//! Starts the management API on a listener that is already bound.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Floors, Settings};
use crate::admin;
use crate::store::Store;

/// What the management API is given.
pub(super) fn router(store: Arc<Store>, floors: &Floors, settings: &Settings, own_listeners: Vec<SocketAddr>) -> axum::Router {
    drop((store, own_listeners, floors, settings));
    axum::Router::new()
}
/// x
pub(super) async fn run(_l: std::net::TcpListener, _r: axum::Router, _s: tokio::sync::watch::Receiver<bool>) {}
