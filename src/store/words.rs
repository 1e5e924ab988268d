//! The words that enumerations are stored as. They are the management API's, and part of the schema: never rename one
//! without a migration.

use super::Source;
use crate::catalog::{BudgetPeriod, CacheMode, CacheScope, Engine, LoadBalancing, ManagedBy, ModelType, Protocol, TenantStatus};

/// An enumeration whose values are stored as words.
pub(super) trait Word: Sized {
    fn word(&self) -> &'static str;
    fn read(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        impl Word for $name {
            fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn read(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    )+};
}

words! {
    ManagedBy { Api = "api", File = "file" }
    Source { Api = "api", File = "file", Cli = "cli" }
    TenantStatus { Active = "active", Suspended = "suspended" }
    BudgetPeriod { Day = "day", Month = "month", Lifetime = "lifetime" }
    Engine {
        Vllm = "vllm", Sglang = "sglang", LlamaCpp = "llama_cpp", Ollama = "ollama", Tgi = "tgi", Openai = "openai", Other = "other",
    }
    Protocol { Openai = "openai", Anthropic = "anthropic" }
    ModelType {
        Chat = "chat", Completion = "completion", Embedding = "embedding", Rerank = "rerank", Image = "image",
        AudioSpeech = "audio_speech", AudioTranscription = "audio_transcription",
    }
    LoadBalancing { LeastRequest = "least_request", RoundRobin = "round_robin", Session = "session", Prefix = "prefix" }
    CacheScope { Tenant = "tenant", Group = "group", Global = "global" }
    CacheMode { All = "all", Deterministic = "deterministic" }
}
