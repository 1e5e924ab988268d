//! The management API: one file per noun of the URL.
//!
//! A request passes, from the outside in: the [envelope] (request id, deadline, problem documents, panics), the check
//! against DNS [rebinding], for everything under `/api/v1` the [doorkeeper](auth), and then a handler. Deny by default:
//! authentication is a layer around the whole nested router, its 404 included, not something that a route asks for.
//!
//! A handler that changes something takes [`Sent`](sent::Sent) (author, condition, body), reads the body as a
//! [draft](draft::Draft), and hands the [desk] a closure that edits the catalog on the store's writer thread. Reading and
//! describing a body come from one declaration, so the OpenAPI document cannot promise what is not checked.

mod answer;
mod audit;
mod auth;
mod capacity;
mod condition;
mod config;
mod costs;
mod credential;
mod desk;
mod draft;
mod envelope;
mod face;
mod fairshare;
mod fault;
mod fields;
mod health;
mod keys;
mod mcp_servers;
mod metrics;
mod models;
mod number;
mod of;
mod openapi;
mod page;
mod problem;
mod provenance;
mod ranges;
mod rebinding;
mod rules;
mod sent;
mod serve;
mod shown;
mod tenants;
mod usage;
mod value;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

pub use auth::{AdminToken, UnusableToken};
pub use config::{ConfigChange, ConfigFault, ConfigOutcome, ConfigStatus, Configuration, ReloadError};
pub use desk::{CacheSize, CacheSizes, LastUsed, PurgeCache};
pub use health::Readiness;
pub use metrics::Metrics;
pub use openapi::document;
pub use serve::{Bounds, Door, serve};

use crate::admission::Admission;
use crate::catalog::Live;
use crate::credential::KeyHasher;
use crate::egress;
use crate::limits::Failures;
use crate::store::Store;
use crate::upstreams::Upstreams;
use auth::Doorkeeper;
use desk::Desk;
use problem::Problem;
use rebinding::Known;
use rules::Rules;

/// Where the API is.
const BASE: &str = "/api/v1";

/// What the management API opens on.
pub struct Doors {
    /// Where changes go.
    pub store: Arc<Store>,
    /// Where they come into force.
    pub live: Arc<Live>,
    /// What `/stats` and `/fairshare/live` show.
    pub admission: Arc<Admission>,
    /// What models' `health` shows.
    pub upstreams: Arc<Upstreams>,
    /// Who may come in.
    pub token: AdminToken,
    /// Who showed a wrong token of late.
    pub failures: Arc<Failures>,
    /// Digests new keys.
    pub hasher: KeyHasher,
    /// Where upstreams may be.
    pub egress: egress::Policy,
    /// The gateway's own listeners, which are no upstreams.
    pub own_listeners: Vec<SocketAddr>,
    /// Whether credentials' values can be stored: there is a key to seal them with.
    pub seals: bool,
    /// Where this API listens; requests must be addressed to it or to loopback.
    pub listen: Option<SocketAddr>,
    /// Further host names that it answers to.
    pub hosts: Vec<String>,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// When keys were last used.
    pub last_used: LastUsed,
    /// What the response cache holds.
    pub cache_size: CacheSizes,
    /// Empties a model's response cache.
    pub purge_cache: PurgeCache,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Whether who comes from another machine may read that without the token.
    pub metrics_open: bool,
    /// The configuration file.
    pub configuration: Arc<dyn Configuration>,
}

/// What handlers may ask for; each takes only its part.
#[derive(Clone)]
struct Room {
    desk: Desk,
    rules: Rules,
    hasher: KeyHasher,
    admission: Arc<Admission>,
    readiness: Readiness,
    configuration: Arc<dyn Configuration>,
}

macro_rules! parts {
    ($($field:ident: $part:ty),+) => {$(
        impl FromRef<Room> for $part {
            fn from_ref(room: &Room) -> Self {
                room.$field.clone()
            }
        }
    )+};
}
parts!(
    desk: Desk,
    rules: Rules,
    hasher: KeyHasher,
    admission: Arc<Admission>,
    readiness: Readiness,
    configuration: Arc<dyn Configuration>
);

/// Everything on the management port.
pub fn router(doors: Doors) -> Router {
    let doorkeeper = Doorkeeper::new(doors.token, doors.failures);
    let known = Known::new(doors.listen, &doors.hosts);
    let room = Room {
        desk: Desk {
            store: doors.store,
            live: doors.live,
            upstreams: doors.upstreams,
            last_used: doors.last_used,
            cache_size: doors.cache_size,
            purge_cache: doors.purge_cache,
        },
        rules: Rules {
            policy: doors.egress,
            own: doors.own_listeners.into(),
            seals: doors.seals,
        },
        hasher: doors.hasher,
        admission: doors.admission,
        readiness: doors.readiness,
        configuration: doors.configuration,
    };
    let (api, _) = api().split_for_parts();
    let api = api
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(doorkeeper.clone(), auth::authenticate));
    let doorkeeper = (!doors.metrics_open).then_some(doorkeeper);
    Router::new()
        .nest(BASE, api)
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .with_state(room)
        .merge(metrics::route(doors.metrics, doorkeeper))
        .merge(openapi::reader())
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(known, rebinding::check))
        .layer(middleware::from_fn(envelope::wrap))
}

/// The routes under `/api/v1`, each with its description.
fn api() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .merge(tenants::routes())
        .merge(keys::routes())
        .merge(models::routes())
        .merge(fairshare::routes())
        .merge(mcp_servers::routes())
        .merge(usage::routes())
        .merge(costs::routes())
        .merge(capacity::routes())
        .merge(audit::routes())
        .merge(config::routes())
        .merge(health::routes())
        .merge(openapi::routes())
}

async fn no_route() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests;
