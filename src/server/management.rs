//! Starts the management API on a listener that is already bound.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio::sync::watch;

use super::scrape::Scrape;
use super::tls::Acceptor;
use super::{Floors, Settings, StartError};
use crate::admin::{self, AdminToken, CacheSize, Configuration, Doors, Readiness};
use crate::store::Store;

/// Builds the API on the floors below it.
pub(super) fn router(
    store: Arc<Store>,
    floors: &Floors,
    settings: &Settings,
    listening: [SocketAddr; 2],
    readiness: Readiness,
    configuration: Arc<dyn Configuration>,
    scrape: Scrape,
) -> Result<Router, StartError> {
    let (limits, answers) = (Arc::clone(&floors.limits), Arc::clone(&floors.answers));
    let purged = Arc::clone(&floors.answers);
    Ok(admin::router(Doors {
        store,
        live: Arc::clone(&floors.live),
        admission: Arc::clone(&floors.admission),
        upstreams: Arc::clone(&floors.upstreams),
        token: AdminToken::new(&settings.admin_token).map_err(StartError::AdminToken)?,
        failures: Arc::clone(&floors.failures.management),
        hasher: floors.hasher.clone(),
        egress: settings.boot().egress,
        own_listeners: listening.to_vec(),
        seals: settings.encryption_key.is_some(),
        listen: Some(listening[1]),
        hosts: Vec::new(),
        readiness,
        last_used: Arc::new(move |key| limits.last_used(key)),
        cache_size: Arc::new(move || {
            let counters = answers.counters(Instant::now());
            CacheSize {
                entries: counters.entries,
                bytes: counters.bytes,
            }
        }),
        purge_cache: Arc::new(move |model| purged.purge(model)),
        metrics: Arc::new(move || scrape.text()),
        metrics_open: settings.boot().metrics.open,
        configuration,
    }))
}

/// Serves until told to stop; then finishes what runs.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    connections: usize,
    tls: Option<Acceptor>,
    door: watch::Receiver<admin::Door>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    admin::serve(
        tokio::net::TcpListener::from_std(listener)?,
        router,
        admin::Bounds {
            connections,
            ..admin::Bounds::default()
        },
        tls,
        door,
    )
    .await;
    Ok(())
}
