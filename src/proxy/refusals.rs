//! Requests that were refused before it was known whose they are: they have no ledger row, so they are counted here.

use std::sync::atomic::{AtomicU64, Ordering};

/// The codes that such refusals can have. One that is missing here counts as the last.
const CODES: [&str; 13] = [
    "invalid_api_key",
    "too_many_failures",
    "conflicting_credentials",
    "key_disabled",
    "key_expired",
    "tenant_suspended",
    "not_found",
    "method_not_allowed",
    "model_not_found",
    "bad_request",
    "header_too_large",
    "client_gone",
    "other",
];

/// Counts refusals by error code.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; CODES.len()]);

impl Refusals {
    /// One more.
    pub(super) fn count(&self, code: &str) {
        let at = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
        if let Some(count) = self.0.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each code with how often it was the answer so far.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.iter().copied().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Whether a code says that authentication failed.
    #[must_use]
    pub fn is_authentication(code: &str) -> bool {
        CODES.iter().take(6).any(|known| *known == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_counts_somewhere() {
        let refusals = Refusals::default();
        for code in ["invalid_api_key", "invalid_api_key", "header_too_large", "a new one"] {
            refusals.count(code);
        }
        let counts: Vec<_> = refusals.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("invalid_api_key", 2), ("header_too_large", 1), ("other", 1)]);
        assert!(Refusals::is_authentication("tenant_suspended") && !Refusals::is_authentication("not_found"));
    }
}
