//! The words of the nouns' enumerations: what the management API, the configuration file and the store all write.
//!
//! They are part of the wire and of the schema: never rename one without a migration.

use super::noun::{BudgetPeriod, CacheMode, CacheScope, Engine, LoadBalancing, ManagedBy, ModelType, Protocol, TenantStatus};

/// An enumeration that is written as one of a few words.
pub trait Word: Copy + PartialEq + 'static {
    /// The words, in the documented order.
    const NAMES: &'static [&'static str];
    /// The values, in the same order.
    const VALUES: &'static [Self];

    /// The value's word.
    #[must_use]
    fn word(self) -> &'static str;

    /// The value of a word.
    #[must_use]
    fn from_word(word: &str) -> Option<Self> {
        let place = Self::NAMES.iter().position(|name| *name == word)?;
        Self::VALUES.get(place).copied()
    }
}

/// Gives enumerations their words. Does not compile when a value has none.
macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {
        $(impl $crate::catalog::Word for $name {
            const NAMES: &'static [&'static str] = &[$($word),+];
            const VALUES: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        })+
    };
}

pub(crate) use words;

words! {
    ManagedBy { Api = "api", File = "file" }
    TenantStatus { Active = "active", Suspended = "suspended" }
    BudgetPeriod { Day = "day", Month = "month", Lifetime = "lifetime" }
    Engine {
        Vllm = "vllm",
        Sglang = "sglang",
        LlamaCpp = "llama_cpp",
        Ollama = "ollama",
        Tgi = "tgi",
        Openai = "openai",
        Other = "other",
    }
    Protocol { Openai = "openai", Anthropic = "anthropic" }
    ModelType {
        Chat = "chat",
        Completion = "completion",
        Embedding = "embedding",
        Rerank = "rerank",
        Image = "image",
        AudioSpeech = "audio_speech",
        AudioTranscription = "audio_transcription",
    }
    LoadBalancing { LeastRequest = "least_request", RoundRobin = "round_robin", Session = "session", Prefix = "prefix" }
    CacheScope { Tenant = "tenant", Group = "group", Global = "global" }
    CacheMode { All = "all", Deterministic = "deterministic" }
}
