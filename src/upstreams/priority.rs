//! The engines' own priority fields, set from a tenant's standing: pure.

use crate::catalog::Engine;
use crate::llm::Route;
use crate::scheduler::Standing;

/// The value of the request's `priority` field, or `None` where the engine or the route has no such field.
///
/// vLLM serves lower values sooner, SGLang higher ones (unless it was started with
/// `--schedule-low-priority-values-first`). Owners never come after what reaches the engine past the gateway, which
/// carries the default 0.
#[must_use]
pub const fn engine_priority_value(engine: Engine, route: Route, standing: Standing) -> Option<i64> {
    if !is_scheduled(route) {
        return None;
    }
    match (engine, standing) {
        (Engine::Vllm, Standing::Owner) | (Engine::Sglang, Standing::Borrower) => Some(0),
        (Engine::Vllm, Standing::Borrower) | (Engine::Sglang, Standing::Owner) => Some(1),
        (Engine::LlamaCpp | Engine::Ollama | Engine::Tgi | Engine::Openai | Engine::Other, _) => None,
    }
}

/// Whether engines queue the route's requests by priority: generation, and the pooling beside it. Anthropic's routes know
/// no such field.
const fn is_scheduled(route: Route) -> bool {
    matches!(
        route,
        Route::ChatCompletions | Route::Completions | Route::Responses | Route::Embeddings | Route::Rerank
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(engine: Engine, route: Route) -> [Option<i64>; 2] {
        [Standing::Owner, Standing::Borrower].map(|standing| engine_priority_value(engine, route, standing))
    }

    #[test]
    fn owners_go_before_borrowers_in_each_engines_own_direction() {
        let chat = |engine| both(engine, Route::ChatCompletions);
        assert!(matches!(chat(Engine::Vllm), [Some(owner), Some(borrower)] if owner < borrower));
        assert!(matches!(chat(Engine::Sglang), [Some(owner), Some(borrower)] if owner > borrower));
        for engine in [Engine::LlamaCpp, Engine::Ollama, Engine::Tgi, Engine::Openai, Engine::Other] {
            assert_eq!(chat(engine), [None, None]);
        }
    }

    #[test]
    fn routes_that_know_no_priority_get_none() {
        for route in [Route::Messages, Route::CountTokens, Route::Moderations, Route::AudioTranscriptions] {
            assert_eq!(both(Engine::Vllm, route), [None, None], "{route:?}");
        }
    }
}
