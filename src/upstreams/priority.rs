//! The engines' own priority fields, set from a tenant's standing: pure.

use crate::catalog::Engine;

/// Where a tenant stands against its fair share when its request is dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Within its share.
    Owner,
    /// Above it, on slots that others leave unused.
    Borrower,
}

/// The value of the request's `priority` field, or `None` where the engine has no such field.
///
/// vLLM serves lower values sooner, SGLang higher ones (unless it was started with
/// `--schedule-low-priority-values-first`). Owners never come after what reaches the engine past the gateway, which
/// carries the default 0.
#[must_use]
pub const fn engine_priority_value(engine: Engine, standing: Standing) -> Option<i64> {
    match (engine, standing) {
        (Engine::Vllm, Standing::Owner) | (Engine::Sglang, Standing::Borrower) => Some(0),
        (Engine::Vllm, Standing::Borrower) | (Engine::Sglang, Standing::Owner) => Some(1),
        (Engine::LlamaCpp | Engine::Ollama | Engine::Tgi | Engine::Openai | Engine::Other, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_go_before_borrowers_in_each_engines_own_direction() {
        let both = |engine| [Standing::Owner, Standing::Borrower].map(|standing| engine_priority_value(engine, standing));
        assert!(matches!(both(Engine::Vllm), [Some(owner), Some(borrower)] if owner < borrower));
        assert!(matches!(both(Engine::Sglang), [Some(owner), Some(borrower)] if owner > borrower));
        for engine in [Engine::LlamaCpp, Engine::Ollama, Engine::Tgi, Engine::Openai, Engine::Other] {
            assert_eq!(both(engine), [None, None]);
        }
    }
}
