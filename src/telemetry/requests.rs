//! What requests add up to: counted from the ledger's rows, on the thread that moves them, so that it costs the request
//! itself nothing and agrees with the bill.
//!
//! Memory is bounded: so many tenants by their own name (the others together are `_other`), so many pairs of tenant and
//! model, so many endpoints. Who leaves the catalog is forgotten, and with them their series. One lock, held for a row.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::family;
use super::page::Page;
use super::times::Times;
use crate::catalog::Catalog;
use crate::id::TenantId;
use crate::mcp::LEDGER_PREFIX;
use crate::units::PicoUsd;

/// What tenants are called in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TenantLabel {
    /// By their name.
    #[default]
    Name,
    /// By their fair-share group.
    Group,
    /// Not at all: the label is empty.
    Off,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What tenants are called.
    pub tenant_label: TenantLabel,
    /// How many tenants (or groups) have series of their own.
    pub tenants_max: usize,
}

/// Pairs of tenant and model that have series of their own; then the tenant is `_other`.
const PAIRS_MAX: usize = 20_000;
/// Models that have series of their own. More than anybody registers.
const MODELS_MAX: usize = 1_000;
/// Tools of MCP servers get series of their own up to here: they leave room for models.
const TOOLS_MAX: usize = MODELS_MAX / 2;
/// Endpoints of models that have series of their own.
const ENDPOINTS_MAX: usize = 2_000;
/// Pairs of tenant and error code.
const REASONS_MAX: usize = 20_000;

/// Who or what is past a bound, or no longer in the catalog.
const OTHER: &str = "_other";

/// The outcomes of the ledger, in its words.
pub(super) const OUTCOMES: [&str; 6] = ["ok", "rejected", "error", "timeout", "cancelled", "interrupted"];

/// One request that has ended, as the ledger has it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// The model's registered name; empty where none was found.
    pub model: &'a str,
    /// The ledger's word.
    pub outcome: &'static str,
    /// The error's code.
    pub error_code: Option<&'a str>,
    /// How often it was dispatched.
    pub attempts: u32,
    /// Input, cached input, output, reasoning.
    pub tokens: [u64; 4],
    /// What it cost.
    pub cost: PicoUsd,
    /// Waited for a slot.
    pub queue_ms: u64,
    /// To the first piece of the answer.
    pub ttft_ms: Option<u64>,
    /// To the end.
    pub total_ms: u64,
    /// Whether the answer was streamed.
    pub stream: bool,
}

const TOKEN_TYPES: [&str; 4] = ["input", "cached_input", "output", "reasoning"];

/// Counts requests.
#[derive(Debug)]
pub struct Requests {
    settings: Settings,
    state: Mutex<State>,
}

/// Whom a series is of. By id, so that a new name does not begin a new series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Tenant(TenantId),
    Group(Arc<str>),
    All,
    Other,
}

#[derive(Debug)]
struct State {
    catalog: Arc<Catalog>,
    /// Who have series of their own.
    named: HashSet<Who>,
    pairs: HashMap<(Who, Arc<str>), Sums>,
    models: HashMap<Arc<str>, Times>,
    rejections: HashMap<(Who, Arc<str>), u64>,
    /// By model, or by MCP server.
    attempts: HashMap<Arc<str>, Attempts>,
    /// Endpoints of all of them; counted anew when the page is made.
    endpoints: usize,
}

/// The attempts of a model's requests.
#[derive(Debug, Default)]
struct Attempts {
    /// By endpoint, how often each outcome came: words of the program's own, so they are few.
    endpoints: HashMap<Arc<str>, Vec<(&'static str, u64)>>,
    /// How many there were beyond the first.
    retries: u64,
}

#[derive(Debug, Default)]
struct Sums {
    outcomes: [u64; OUTCOMES.len()],
    tokens: [u64; TOKEN_TYPES.len()],
    cost: u128,
}

impl Requests {
    /// Nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: Mutex::new(State {
                catalog: Arc::new(Catalog::empty(0)),
                named: HashSet::new(),
                pairs: HashMap::new(),
                models: HashMap::new(),
                rejections: HashMap::new(),
                attempts: HashMap::new(),
                endpoints: 0,
            }),
        }
    }

    /// Follows the catalog: forgets who has left it.
    pub fn apply(&self, catalog: &Arc<Catalog>) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.catalog, Arc::clone(catalog));
        let State {
            named,
            pairs,
            models,
            rejections,
            attempts,
            ..
        } = &mut *state;
        if !before.tenants().same(catalog.tenants()) || !before.groups().same(catalog.groups()) {
            let stays = |who: &Who| match who {
                Who::Tenant(id) => catalog.tenants().get(id).is_some(),
                Who::Group(name) => catalog.groups().get(name).is_some(),
                Who::All | Who::Other => true,
            };
            named.retain(stays);
            pairs.retain(|(who, _), _| stays(who));
            rejections.retain(|(who, _), _| stays(who));
        }
        if !before.models().same(catalog.models()) || !before.mcp_servers().same(catalog.mcp_servers()) {
            let stays = |model: &str| model.is_empty() || model == OTHER || is_registered(catalog, model);
            pairs.retain(|(_, model), _| stays(model));
            models.retain(|model, _| stays(model));
            attempts.retain(|model, _| stays(model));
        }
    }

    /// Counts a request and its attempts: where each went and how it ended, in one of a few words.
    pub fn count<'a>(&self, request: &Request<'_>, attempts: impl Iterator<Item = (&'a str, &'static str)>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let who = state.who(self.settings, &request.tenant);
        let model = state.model(request.model);
        let outcome = OUTCOMES.iter().position(|word| *word == request.outcome);
        let sums = bounded(
            &mut state.pairs,
            (who.clone(), Arc::clone(&model)),
            (Who::Other, Arc::clone(&model)),
            PAIRS_MAX,
        );
        sums.cost = sums.cost.saturating_add(request.cost.0);
        for (sum, tokens) in sums.tokens.iter_mut().zip(request.tokens) {
            *sum = sum.saturating_add(tokens);
        }
        if let Some(count) = outcome.and_then(|outcome| sums.outcomes.get_mut(outcome)) {
            *count += 1;
        }
        if request.outcome == "rejected" {
            let reason: Arc<str> = request.error_code.unwrap_or_default().into();
            *bounded(&mut state.rejections, (who, reason), (Who::Other, OTHER.into()), REASONS_MAX) += 1;
        }
        state.count_attempts(&model, request.attempts, attempts);
        // A request that never had a model neither queued nor has times to compare.
        if !model.is_empty() {
            state.models.entry(model).or_default().observe(request, outcome);
        }
    }

    /// What a tenant is called in metrics.
    #[must_use]
    pub fn tenant_label(&self, tenant: &TenantId) -> String {
        let mut state = self.state.lock();
        let who = state.who(self.settings, tenant);
        state.label(&who).to_owned()
    }

    /// Writes what was counted. `endpoints` are those that exist; what was counted of others is forgotten.
    pub fn show(&self, page: &mut Page, endpoints: &HashSet<String>) {
        let mut state = self.state.lock();
        for attempts in state.attempts.values_mut() {
            let exists = |endpoint: &str| endpoint == OTHER || endpoints.contains(endpoint);
            attempts.endpoints.retain(|endpoint, _| exists(endpoint));
        }
        state.endpoints = state.attempts.values().map(|attempts| attempts.endpoints.len()).sum();
        for ((who, model), sums) in &state.pairs {
            let tenant = state.label(who);
            for (outcome, count) in OUTCOMES.iter().zip(sums.outcomes).filter(|(_, count)| *count > 0) {
                page.put_of(&family::REQUESTS, &[tenant, model, outcome], number(count));
            }
            for (kind, count) in TOKEN_TYPES.iter().zip(sums.tokens).filter(|(_, count)| *count > 0) {
                page.put_of(&family::TOKENS, &[tenant, model, kind], number(count));
            }
            if sums.cost > 0 {
                page.put_of(&family::COST, &[tenant, model], dollars(PicoUsd(sums.cost)));
            }
        }
        for ((who, reason), count) in &state.rejections {
            page.put_of(&family::REJECTIONS, &[state.label(who), reason], number(*count));
        }
        for (model, attempts) in &state.attempts {
            for (endpoint, counts) in &attempts.endpoints {
                for (result, count) in counts {
                    page.put_of(&family::UPSTREAM_ATTEMPTS, &[model, endpoint, result], number(*count));
                }
            }
            page.put_of(&family::UPSTREAM_RETRIES, &[model], number(attempts.retries));
        }
        for (model, times) in &state.models {
            times.show(page, model);
        }
    }
}

impl State {
    /// Whom a tenant's requests are counted for.
    fn who(&mut self, settings: Settings, tenant: &TenantId) -> Who {
        if settings.tenant_label == TenantLabel::Off {
            return Who::All;
        }
        let Some(tenant) = self.catalog.tenants().get(tenant) else {
            return Who::Other;
        };
        let who = match settings.tenant_label {
            TenantLabel::Group => Who::Group(Arc::clone(&tenant.group)),
            TenantLabel::Name | TenantLabel::Off => Who::Tenant(tenant.id),
        };
        if self.named.contains(&who) {
            return who;
        }
        if self.named.len() >= settings.tenants_max {
            return Who::Other;
        }
        self.named.insert(who.clone());
        who
    }

    fn label<'a>(&'a self, who: &'a Who) -> &'a str {
        match who {
            Who::Tenant(id) => self.catalog.tenants().get(id).map_or(OTHER, |tenant| &tenant.name),
            Who::Group(name) => name,
            Who::All => "",
            Who::Other => OTHER,
        }
    }

    /// A model's label: only what is registered has one of its own.
    fn model(&self, name: &str) -> Arc<str> {
        if let Some((known, _)) = self.models.get_key_value(name) {
            return Arc::clone(known);
        }
        let max = if name.starts_with(LEDGER_PREFIX) { TOOLS_MAX } else { MODELS_MAX };
        if name.is_empty() || is_registered(&self.catalog, name) && self.models.len() < max {
            return name.into();
        }
        OTHER.into()
    }

    fn count_attempts<'a>(&mut self, model: &str, made: u32, attempts: impl Iterator<Item = (&'a str, &'static str)>) {
        if made == 0 {
            return;
        }
        // A server's tools have its endpoints in common.
        let owner = match model.split_once('/') {
            Some((server, _)) if server.starts_with(LEDGER_PREFIX) => server,
            _ => model,
        };
        // Looked up by the text itself: most rows meet a model and an endpoint that are known.
        let of = match self.attempts.get_mut(owner) {
            Some(of) => of,
            None => self.attempts.entry(owner.into()).or_default(),
        };
        of.retries += u64::from(made - 1);
        for (endpoint, outcome) in attempts {
            let counts = match of.endpoints.get_mut(endpoint) {
                Some(counts) => counts,
                None if self.endpoints < ENDPOINTS_MAX => {
                    self.endpoints += 1;
                    of.endpoints.entry(endpoint.into()).or_default()
                }
                None => of.endpoints.entry(OTHER.into()).or_default(),
            };
            match counts.iter_mut().find(|(word, _)| *word == outcome) {
                Some((_, count)) => *count += 1,
                None => counts.push((outcome, 1)),
            }
        }
    }
}

/// A model of this very name, not of this alias; or an MCP server, with a tool of it or without. How many tools a server has is
/// bounded where they are named.
fn is_registered(catalog: &Catalog, name: &str) -> bool {
    let server = || name.strip_prefix(LEDGER_PREFIX).and_then(|at| at.split('/').next());
    catalog.model_named(name).is_some_and(|model| model.name == name)
        || server().is_some_and(|server| catalog.mcp_server_named(server).is_some())
}

/// The entry of `key`, or of `rest` once there are `max`.
fn bounded<K: Hash + Eq, V: Default>(map: &mut HashMap<K, V>, key: K, rest: K, max: usize) -> &mut V {
    let full = map.len() >= max && !map.contains_key(&key);
    map.entry(if full { rest } else { key }).or_default()
}

/// Money as metrics have it; exact to some fifteen digits.
#[must_use]
pub fn dollars(amount: PicoUsd) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
    let picos = amount.0 as f64;
    picos / 1e12
}

/// A count as metrics have it; exact up to 2^53.
#[must_use]
pub fn number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
    let number = count as f64;
    number
}

#[cfg(test)]
mod tests;
