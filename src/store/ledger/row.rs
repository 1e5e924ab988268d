//! One row of the ledger: what became of one request, and what it cost.

use std::borrow::Cow;
use std::sync::Arc;

use super::attempt::Attempt;
use crate::id::{KeyId, RequestId, TenantId};
use crate::units::{PicoUsd, UnixMs};

/// Declares an enum whose values have a word (in the API and the store) and a small number (in the spool).
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$arm_doc:meta])* $arm:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$arm_doc])* $arm,)* }

        impl $name {
            /// Every value, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$arm,)*];

            /// The word of the API and the store.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$arm => $word,)* }
            }

            /// Finds the value of a word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$arm),)* _ => None }
            }
        }
    };
}
pub(super) use words;

words! {
    /// How a request ended.
    Outcome {
        /// Answered.
        #[default]
        Ok = "ok",
        /// Refused by the gateway before it was dispatched.
        Rejected = "rejected",
        /// Upstream answered 4xx or 5xx, or could not be reached.
        Error = "error",
        /// Upstream was too slow.
        Timeout = "timeout",
        /// The client left.
        Cancelled = "cancelled",
        /// Upstream or the gateway died in the middle.
        Interrupted = "interrupted",
    }
}

impl Outcome {
    /// Whether it counts among the errors of usage.
    #[must_use]
    pub const fn is_error(self) -> bool {
        match self {
            Self::Error | Self::Timeout | Self::Interrupted => true,
            Self::Ok | Self::Rejected | Self::Cancelled => false,
        }
    }
}

words! {
    /// Where token counts come from.
    UsageSource {
        /// Upstream counted.
        Reported = "reported",
        /// The gateway guessed from bytes.
        Estimated = "estimated",
        /// There are none.
        #[default]
        None = "none",
    }
}

words! {
    /// What the response cache had to do with it.
    CacheStatus {
        /// Nothing.
        #[default]
        Off = "off",
        /// It had no answer.
        Miss = "miss",
        /// It answered.
        Hit = "hit",
        /// It answered with another request's answer, when that came.
        Coalesced = "coalesced",
        /// The client went around it.
        Bypass = "bypass",
    }
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Input, cached or not.
    pub input: u64,
    /// Of these, from the upstream's prefix cache.
    pub cached_input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Of these, reasoning.
    pub reasoning: u64,
}

/// What a request cost, at the prices of when it ran. The parts add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// For input, cached input included.
    pub input: PicoUsd,
    /// For output.
    pub output: PicoUsd,
    /// For the request itself.
    pub request: PicoUsd,
}

impl Charge {
    /// The whole.
    #[must_use]
    pub const fn total(&self) -> PicoUsd {
        PicoUsd(self.input.0.saturating_add(self.output.0).saturating_add(self.request.0))
    }
}

/// What a cache hit spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// Tokens that were not computed.
    pub tokens: u64,
    /// What they would have cost.
    pub cost: PicoUsd,
}

/// Durations of a request, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Waited for a slot.
    pub queue_ms: u64,
    /// From the request's arrival to the answer's first token or byte.
    pub ttft_ms: Option<u64>,
    /// From the request's arrival to its end.
    pub total_ms: u64,
}

/// One row. The request's id is the gateway's own and unique; a row that is written twice is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Minted by the gateway.
    pub request_id: RequestId,
    /// When it arrived.
    pub at: UnixMs,
    /// Whose.
    pub tenant: TenantId,
    /// With which key.
    pub key: KeyId,
    /// Registered name of the model; empty when none was found.
    pub model: Arc<str>,
    /// `x-request-id` of the client.
    pub client_request_id: Option<Box<str>>,
    /// The session it named.
    pub session_id: Option<Box<str>>,
    /// URL of the endpoint that had it last; empty when it was not dispatched.
    pub endpoint: Arc<str>,
    /// The path of the data plane it came to.
    pub route: Cow<'static, str>,
    /// How it ended.
    pub outcome: Outcome,
    /// Status answered; 499 when the client left before.
    pub status: u16,
    /// `code` of the error answered.
    pub error_code: Option<Cow<'static, str>>,
    /// How many endpoints were tried.
    pub attempts: u32,
    /// How each attempt ended, the last one last, at most [`ATTEMPTS_MAX`](super::ATTEMPTS_MAX) of them; empty where the only
    /// one went well, or nobody was left to tell.
    pub attempt_log: Box<[Attempt]>,
    /// What it used.
    pub tokens: Tokens,
    /// Who counted.
    pub usage_source: UsageSource,
    /// What it cost.
    pub charge: Charge,
    /// What the response cache did.
    pub cache: CacheStatus,
    /// What the response cache spared.
    pub saved: Saved,
    /// How long it took.
    pub timing: Timing,
    /// Whether the answer was streamed.
    pub stream: bool,
}
