//! The words of the wire for the catalog's enumerations.

use serde::{Serialize, Serializer};

use crate::catalog::{BudgetPeriod, CacheMode, CacheScope, Engine, LoadBalancing, ManagedBy, ModelType, Protocol, TenantStatus};
use crate::store::Source;

/// An enumeration that is written as one of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Every value with its word, the default first where there is one.
    const WORDS: &'static [(&'static str, Self)];

    /// The value's word.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// Writes an enumeration as its word.
pub(super) fn spell<W: Word, S: Serializer>(value: &W, serializer: S) -> Result<S::Ok, S::Error> {
    value.word().serialize(serializer)
}

macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {
        $(impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        })+

        #[cfg(test)]
        mod tests {
            use super::*;

            /// Fails to compile when a value has no word.
            #[test]
            fn every_value_has_a_word() {
                $(for (word, value) in $name::WORDS {
                    let expected = match value { $($name::$variant => $word),+ };
                    assert_eq!(*word, expected);
                    assert_eq!(value.word(), expected);
                })+
            }
        }
    };
}

words! {
    ManagedBy { Api = "api", File = "file" }
    Source { Api = "api", File = "file", Cli = "cli" }
    TenantStatus { Active = "active", Suspended = "suspended" }
    BudgetPeriod { Month = "month", Day = "day", Lifetime = "lifetime" }
    Engine {
        Other = "other",
        Vllm = "vllm",
        Sglang = "sglang",
        LlamaCpp = "llama_cpp",
        Ollama = "ollama",
        Tgi = "tgi",
        Openai = "openai",
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
