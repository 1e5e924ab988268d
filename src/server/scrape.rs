//! `/metrics`: asks every engine how things stand, once per scrape. Nothing here is on a request's way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::reload::Reloader;
use super::tls::{self, Followed};
use super::{Floors, process};
use crate::admin::{ConfigOutcome, Readiness};
use crate::admission::Admission;
use crate::answers::Answers;
use crate::catalog::{Catalog, Live};
use crate::limits::{Failures, Limits};
use crate::metering::Meter;
use crate::proxy::{Active, Budget, Refusals};
use crate::scheduler::Snapshot;
use crate::store::Store;
use crate::telemetry::{Page, RequestLog, Requests, Traces, dollars, family, number};
use crate::upstreams::{HealthState, Upstreams};

/// Where the figures come from.
pub(super) struct Scrape {
    store: Arc<Store>,
    live: Arc<Live>,
    admission: Arc<Admission>,
    limits: Arc<Limits>,
    upstreams: Arc<Upstreams>,
    answers: Arc<Answers>,
    meter: Arc<Meter>,
    active: Arc<Active>,
    budget: Arc<Budget>,
    refusals: Arc<Refusals>,
    management: Arc<Failures>,
    requests: Arc<Requests>,
    request_log: RequestLog,
    traces: Traces,
    reloader: Arc<Reloader>,
    readiness: Readiness,
    /// By listener.
    certificates: Vec<(&'static str, Followed)>,
    began: SystemTime,
}

impl Scrape {
    pub(super) fn of(
        floors: &Floors,
        store: Arc<Store>,
        reloader: Arc<Reloader>,
        readiness: Readiness,
        certificates: Vec<(&'static str, Followed)>,
    ) -> Self {
        Self {
            store,
            live: Arc::clone(&floors.live),
            admission: Arc::clone(&floors.admission),
            limits: Arc::clone(&floors.limits),
            upstreams: Arc::clone(&floors.upstreams),
            answers: Arc::clone(&floors.answers),
            meter: Arc::clone(&floors.meter),
            active: Arc::clone(&floors.active),
            budget: Arc::clone(&floors.budget),
            refusals: Arc::clone(&floors.refusals),
            management: Arc::clone(&floors.failures.management),
            requests: Arc::clone(&floors.requests),
            request_log: floors.request_log.clone(),
            traces: floors.traces.clone(),
            reloader,
            readiness,
            certificates,
            began: SystemTime::now(),
        }
    }

    /// All figures, as text.
    pub(super) fn text(&self) -> String {
        let mut page = Page::default();
        let catalog = self.live.load();
        self.program(&mut page);
        let endpoints = self.endpoints(&mut page, &catalog);
        self.requests.show(&mut page, &endpoints);
        self.refusals(&mut page);
        self.share(&mut page, &self.admission.live(), &catalog);
        self.quotas(&mut page);
        self.cache(&mut page);
        self.ledger(&mut page);
        self.configuration(&mut page, &catalog);
        for (listener, certificate) in &self.certificates {
            let standing = tls::standing(certificate);
            page.put_of(&family::CERTIFICATE_OK, &[listener], flag(standing.last_read_well));
            page.put_of(&family::CERTIFICATE_ENDS, &[listener], number(standing.ends.unsigned_abs()));
        }
        process::show(&mut page, self.began);
        page.into_text()
    }

    fn program(&self, page: &mut Page) {
        let revision = option_env!("OBLETH_REVISION").unwrap_or("unknown");
        page.put_of(&family::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), revision], 1.0);
        let writable = self.store.writable().is_ok();
        page.put(&family::STORE_WRITABLE, flag(writable));
        page.put(&family::READY, flag(writable && self.readiness.get()));
        page.put(&family::ACTIVE, number(self.active.count() as u64));
        page.put(&family::BUFFERED, number(self.budget.held()));
        page.put(&family::REQUEST_LOG_DROPPED, number(self.request_log.dropped()));
        let traces = self.traces.counters();
        page.put(&family::TRACES_EXPORTED, number(traces.exported));
        for (reason, count) in [("queue_full", traces.queue_full), ("not_taken", traces.not_taken)] {
            page.put_of(&family::TRACES_DROPPED, &[reason], number(count));
        }
    }

    /// Shows how endpoints stand; returns which there are.
    fn endpoints(&self, page: &mut Page, catalog: &Catalog) -> HashSet<String> {
        let mut seen = HashSet::new();
        for model in catalog.models().values() {
            for endpoint in self.upstreams.health(&model.id) {
                let labels = [&*model.name, &*endpoint.label];
                // Two endpoints of a model may have one host and port.
                page.raise(&family::UPSTREAM_HEALTHY, &labels, flag(endpoint.state != HealthState::Unhealthy));
                page.put_of(&family::UPSTREAM_IN_FLIGHT, &labels, f64::from(endpoint.in_flight));
                seen.insert(endpoint.label);
            }
        }
        for server in catalog.mcp_servers().values() {
            seen.extend(self.upstreams.health(&server.id).into_iter().map(|endpoint| endpoint.label));
        }
        seen
    }

    fn refusals(&self, page: &mut Page) {
        for (code, count) in self.refusals.counts() {
            if Refusals::is_authentication(code) {
                page.put_of(&family::AUTH_FAILURES, &["data", code], number(count));
            } else {
                page.put_of(&family::REFUSED, &[code], number(count));
            }
        }
        let (seen, damped) = (self.management.seen(), self.management.damped());
        page.put_of(
            &family::AUTH_FAILURES,
            &["management", "unauthorized"],
            number(seen.saturating_sub(damped)),
        );
        page.put_of(&family::AUTH_FAILURES, &["management", "too_many_failures"], number(damped));
    }

    fn share(&self, page: &mut Page, snapshot: &Snapshot, catalog: &Catalog) {
        page.put(&family::CAPACITY, f64::from(snapshot.max_in_flight));
        page.put(&family::SLOTS_IN_USE, f64::from(snapshot.in_flight));
        page.put(&family::QUEUED, f64::from(snapshot.queued));
        if let Some(index) = snapshot.fairness_index {
            page.put(&family::FAIRNESS, index);
        }
        let slots = f64::from(snapshot.max_in_flight.max(1));
        for tenant in &snapshot.tenants {
            let label = self.requests.tenant_label(&tenant.tenant);
            let labels = [&*label];
            page.put_of(&family::IN_FLIGHT, &labels, f64::from(tenant.in_flight));
            page.put_of(&family::QUEUE_DEPTH, &labels, f64::from(tenant.queued));
            page.raise(&family::OLDEST_WAIT, &labels, tenant.oldest_wait.as_secs_f64());
            page.put_of(&family::ENTITLEMENT, &labels, tenant.expected_slots / slots);
            page.put_of(&family::SHARE, &labels, f64::from(tenant.in_flight) / slots);
        }
        for view in &snapshot.models {
            if let Some(model) = catalog.models().get(&view.model) {
                page.put_of(&family::MODEL_IN_FLIGHT, &[&model.name], f64::from(view.in_flight));
                page.put_of(&family::MODEL_QUEUE_DEPTH, &[&model.name], f64::from(view.queued));
            }
        }
    }

    fn quotas(&self, page: &mut Page) {
        for (tenant, window) in self.limits.token_windows(self.limits.now()) {
            let label = self.requests.tenant_label(&tenant);
            page.put_of(&family::QUOTA_LIMIT, &[&label], number(window.limit));
            page.put_of(&family::QUOTA_REMAINING, &[&label], number(window.remaining));
        }
    }

    fn cache(&self, page: &mut Page) {
        let counters = self.answers.counters(Instant::now());
        for (result, count) in [
            ("hit", counters.hits),
            ("miss", counters.misses),
            ("coalesced", counters.coalesced),
            ("bypass", counters.bypasses),
        ] {
            page.put_of(&family::CACHE_REQUESTS, &[result], number(count));
        }
        page.put(&family::CACHE_TOKENS_SAVED, number(counters.tokens_saved));
        page.put(&family::CACHE_COST_SAVED, dollars(counters.cost_saved));
        page.put(&family::CACHE_ENTRIES, number(counters.entries));
        page.put(&family::CACHE_BYTES, number(counters.bytes));
    }

    fn ledger(&self, page: &mut Page) {
        let counters = self.meter.counters();
        page.put(&family::LEDGER_ROWS, number(counters.rows));
        page.put(&family::LEDGER_OPEN, number(counters.open));
        page.put(&family::LEDGER_SPOOL, number(counters.spool_bytes));
        page.put(&family::LEDGER_WAITING, number(counters.waiting_rows));
        for (operation, count) in [
            ("spool_write", counters.write_errors),
            ("spool_sync", counters.sync_errors),
            ("spool_read", counters.read_errors),
            ("store_write", counters.store_errors),
        ] {
            page.put_of(&family::LEDGER_ERRORS, &[operation], number(count));
        }
        page.put(&family::LEDGER_REFUSED, number(counters.refused));
        page.put(&family::LEDGER_AT_RISK, number(counters.unspooled));
        page.put(&family::LEDGER_DAMAGED, number(counters.damaged));
        page.put(&family::LEDGER_SET_ASIDE, number(counters.set_aside));
        page.put(&family::LEDGER_DROPPED, number(counters.lost));
    }

    fn configuration(&self, page: &mut Page, catalog: &Catalog) {
        page.put(&family::CONFIG_GENERATION, number(catalog.version()));
        let Some((readings, status)) = self.reloader.figures() else {
            return;
        };
        for (result, count) in [
            ("applied", &readings.applied),
            ("refused", &readings.refused),
            ("unchanged", &readings.unchanged),
        ] {
            page.put_of(&family::CONFIG_RELOADS, &[result], number(count.load(Ordering::Relaxed)));
        }
        page.put(&family::CONFIG_OK, flag(status.outcome == ConfigOutcome::Applied));
        if let Some(at) = status.applied_at {
            page.put(&family::CONFIG_OK_AT, number(at.0.unsigned_abs()) / 1000.0);
        }
        page.put(&family::CONFIG_RESTART, number(status.restart_required.len() as u64));
    }
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}
