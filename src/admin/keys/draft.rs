//! What bodies say of keys.

use crate::admin::draft::draft;
use crate::admin::ranges::{RATE_MAX, SLOTS_MAX, TOKENS_MAX};
use crate::admin::value::{Flag, Line, Maybe, Moment, Money, OneOf, Prose, SetOf, Whole};
use crate::catalog::{ApiKey, BudgetPeriod};

/// A month: longer than any roll-out needs both secrets.
const GRACE_SECS_MAX: u64 = 31 * 86_400;

draft! {
    #[derive(Clone)]
    KeyDraft, "a key", read_only: [
        "id", "tenant_id", "key_prefix", "last_used_at", "managed_by", "overridden", "version", "created_at", "updated_at",
    ],
    /// What it is for.
    name: Line<1, 128>;
    /// Free text.
    description: Prose<4096> = "";
    /// Whether it is refused.
    disabled: Flag = false;
    /// When it stops working; null is never.
    expires_at: Maybe<Moment> = null;
    /// The models it may use, by name; null is all of the tenant's.
    allowed_models: Maybe<SetOf<Line<1, 256>, 1000>> = null;
    /// Tokens per minute; 0 is unlimited.
    tokens_per_minute: Whole<u64, 0, RATE_MAX> = 0;
    /// Requests per minute; 0 is unlimited.
    requests_per_minute: Whole<u64, 0, RATE_MAX> = 0;
    /// How many of its requests may be upstream at once; more wait. Null is no cap.
    max_in_flight: Maybe<Whole<u32, 1, SLOTS_MAX>> = null;
    /// Dollars it may spend per period; null is no limit.
    budget_cost_usd: Maybe<Money> = null;
    /// Tokens it may use per period, input and output together; null is no limit.
    budget_tokens: Maybe<Whole<u64, 0, TOKENS_MAX>> = null;
    /// When its budgets start anew, in UTC.
    budget_period: OneOf<BudgetPeriod> = "month";
}

impl KeyDraft {
    /// Writes what was given into a key.
    pub(super) fn apply(self, key: &mut ApiKey) {
        self.name.settle(&mut key.name, String::new);
        self.description.settle(&mut key.description, String::new);
        self.disabled.settle(&mut key.disabled, || false);
        self.expires_at.settle_option(&mut key.expires_at);
        self.allowed_models.settle_option(&mut key.allowed_models);
        self.tokens_per_minute.settle(&mut key.tokens_per_minute, || 0);
        self.requests_per_minute.settle(&mut key.requests_per_minute, || 0);
        self.max_in_flight.settle_option(&mut key.max_in_flight);
        self.budget_cost_usd.settle_option(&mut key.budget.cost);
        self.budget_tokens.settle_option(&mut key.budget.tokens);
        self.budget_period.settle(&mut key.budget.period, BudgetPeriod::default);
    }
}

draft! {
    DisabledDraft, "a key's state", read_only: [],
    /// True: refused from the next request on.
    disabled: Flag;
}

draft! {
    RotationDraft, "a rotation", read_only: [],
    /// For how many seconds the old secret is still accepted.
    grace_secs: Whole<u32, 0, GRACE_SECS_MAX> = 0;
}
