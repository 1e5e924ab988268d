//! What limits show: the numbers behind the `x-ratelimit-*` headers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::account::Bucket;
use super::{KeyRecord, Limits};
use crate::id::TenantId;
use crate::quota::{Moment, Window};

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The key's own.
    Key,
    /// The tenant's, shared by its keys.
    Tenant,
}

/// What it limits, per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

/// One limit. `Display` is fit for the client: `key's tokens-per-minute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Whose.
    pub subject: Subject,
    /// Of what.
    pub unit: Unit,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.subject, self.unit) {
            (Subject::Key, Unit::Requests) => "key's requests-per-minute",
            (Subject::Key, Unit::Tokens) => "key's tokens-per-minute",
            (Subject::Tenant, Unit::Requests) => "tenant's requests-per-minute",
            (Subject::Tenant, Unit::Tokens) => "tenant's tokens-per-minute",
        })
    }
}

/// Of each unit the limit with least left; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateView {
    /// Requests per minute.
    pub requests: Option<Window>,
    /// Tokens per minute.
    pub tokens: Option<Window>,
}

impl Limits {
    /// The tokens-per-minute limits of all tenants that have one. Looks at every tenant: an operator's question.
    #[must_use]
    pub fn token_windows(&self, now: Moment) -> Vec<(TenantId, Window)> {
        let records = self.records.load();
        let window = |record: &super::TenantRecord| record.account.tokens.as_ref().map(|bucket| bucket.window(now));
        records
            .tenants
            .iter()
            .filter_map(|(tenant, record)| Some((*tenant, window(record)?)))
            .collect()
    }
}

impl KeyRecord {
    pub(super) fn view(&self, now: Moment) -> RateView {
        let (key, tenant) = (&self.account, &self.tenant.account);
        RateView {
            requests: tightest(&key.requests, &tenant.requests, now),
            tokens: tightest(&key.tokens, &tenant.tokens, now),
        }
    }
}

fn tightest(key: &Option<Bucket>, tenant: &Option<Bucket>, now: Moment) -> Option<Window> {
    let windows = [key, tenant].into_iter().flatten().map(|bucket| bucket.window(now));
    windows.min_by_key(|window| (window.remaining, std::cmp::Reverse(window.reset)))
}
