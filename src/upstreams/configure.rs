//! From the catalog's nouns to a pool's sites: what is new is made, what stays is kept, what left drains.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::Settings;
use super::endpoint::{Endpoint, Place, Plan};
use super::pool::Inner;
use super::site::{Site, Work};
use super::tls::{Files, Material};
use crate::catalog::{self, McpServer, Model};
use crate::egress;

/// Makes the configured endpoints the pool's.
pub(super) fn configure(inner: &mut Inner, plans: Vec<Plan>, now: Instant, settings: &Settings) {
    let mut before = std::mem::take(&mut inner.sites);
    let mut sites = Vec::with_capacity(plans.len());
    for plan in plans {
        let known = before.iter().position(|site| site.endpoint.plan == plan);
        let known = known.or_else(|| before.iter().position(|site| site.endpoint.plan.url == plan.url));
        let site = match known.map(|known| before.swap_remove(known)) {
            Some(site) if site.endpoint.plan == plan => site,
            Some(mut site) => {
                let kept = site.endpoint.plan.files == plan.files;
                let material = if kept {
                    Arc::clone(&site.endpoint.material)
                } else {
                    Arc::default()
                };
                site.endpoint = Arc::new(Endpoint::new(plan, Arc::clone(&site.endpoint.in_flight), material));
                // A lookup that is under way answers to the endpoint that was.
                site.names.ask = Work::at(now);
                site.trust = Work::at(now);
                site.trust_error = None;
                site
            }
            None => {
                let mut site = Site::new(Endpoint::new(plan, Arc::new(AtomicU32::new(0)), Arc::<Material>::default()), now);
                if let Some(addr) = site.literal()
                    && let Err(refused) = site.set_addresses(&[addr], now, settings, || inner.slot())
                {
                    site.names.last_error = Some(refused);
                }
                site
            }
        };
        sites.push(site);
    }
    for site in &mut sites {
        site.barred = barred(&site.endpoint, settings);
    }
    inner.sites = sites;
}

/// Why an endpoint cannot be used whatever its addresses say.
fn barred(endpoint: &Endpoint, settings: &Settings) -> Option<Arc<str>> {
    if endpoint.place == Place::Nowhere {
        return Some("the URL has no host".into());
    }
    if let Err(refusal) = egress::check_url(settings.egress, &endpoint.plan.url, &settings.own_listeners) {
        return Some(refusal.to_string().into());
    }
    if endpoint.https() && !cfg!(feature = "tls") {
        return Some("this build speaks no TLS to upstreams (feature `tls`)".into());
    }
    if endpoint.lacks_credential() {
        return Some("the credential cannot be read".into());
    }
    None
}

pub(super) fn plans_of_model(model: &Model) -> Vec<Plan> {
    let plan = |endpoint: &catalog::Endpoint| Plan {
        url: endpoint.url.clone(),
        weight: endpoint.weight.get(),
        priority: endpoint.priority,
        cap: endpoint.max_in_flight,
        credential: endpoint.credential.clone(),
        engine: Some(model.engine),
        server_name: model.tls.server_name.clone(),
        files: Files {
            ca: model.tls.ca_file.clone(),
            client_cert: model.tls.client_cert_file.clone(),
            client_key: model.tls.client_key_file.clone(),
        },
        http2: model.http2,
        connect_ms: model.timeouts.connect_ms,
        api_base: true,
    };
    model.endpoints.iter().map(plan).collect()
}

pub(super) fn plan_of_mcp_server(server: &McpServer) -> Plan {
    Plan {
        url: server.upstream_url.clone(),
        weight: 1,
        priority: 0,
        cap: None,
        credential: server.auth_header.clone(),
        engine: None,
        server_name: None,
        files: Files::default(),
        http2: false,
        connect_ms: catalog::Timeouts::default().connect_ms,
        api_base: false,
    }
}
