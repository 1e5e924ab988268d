//! What an active check asks of each engine, and what the answer means: pure.
//!
//! A check is about the program, not about the route: a server that answers 404 because a gateway in front of it hides
//! its health route is there, and one that asks for a credential is too. Only what says "not now" is a failure.

use std::borrow::Cow;

use crate::catalog::Engine;

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `GET` of this path below the endpoint's base path.
    Get(&'static str),
    /// Nothing: that a connection (and TLS session) comes about is the answer.
    Connect,
}

/// The check of an engine; `None` is an MCP server, whose protocol has no health route.
#[must_use]
pub const fn ask(engine: Option<Engine>) -> Ask {
    match engine {
        // vLLM and SGLang answer 200 as soon as the model is loaded, 503 when the engine behind the server died.
        // llama.cpp answers 503 while it loads. TGI's /health asks the shards.
        Some(Engine::Vllm | Engine::Sglang | Engine::LlamaCpp | Engine::Tgi) => Ask::Get("/health"),
        // Models are loaded on demand: that the server answers is all there is.
        Some(Engine::Ollama) => Ask::Get("/api/version"),
        Some(Engine::Openai | Engine::Other) => Ask::Get("/v1/models"),
        None => Ask::Connect,
    }
}

/// Judges the status of a check's answer.
///
/// # Errors
/// What is wrong, in words for people.
pub fn judge(engine: Engine, status: u16) -> Result<(), Cow<'static, str>> {
    match (engine, status) {
        (Engine::LlamaCpp, 503) => Err("loading the model".into()),
        (Engine::Vllm | Engine::Sglang | Engine::LlamaCpp | Engine::Tgi | Engine::Ollama, 500 | 502..=599)
        // A server without the route may answer 500 to it; a proxy in front says 502 to 504 when nobody is behind it.
        | (Engine::Openai | Engine::Other, 502..=504 | 520..=530) => Err(format!("health check answered {status}").into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: [Engine; 7] = [
        Engine::Vllm,
        Engine::Sglang,
        Engine::LlamaCpp,
        Engine::Ollama,
        Engine::Tgi,
        Engine::Openai,
        Engine::Other,
    ];

    #[test]
    fn an_answer_of_any_kind_is_a_sign_of_life_and_not_now_is_not() {
        for engine in ENGINES {
            for status in [200, 204, 301, 401, 403, 404, 405, 429, 501] {
                assert_eq!(judge(engine, status), Ok(()), "{engine:?} {status}");
            }
            for status in [502, 503, 504] {
                assert!(judge(engine, status).is_err(), "{engine:?} {status}");
            }
        }
    }

    #[test]
    fn an_engine_that_fails_its_own_health_route_is_sick_and_an_unknown_program_has_none() {
        assert!(judge(Engine::Vllm, 500).is_err());
        assert_eq!(judge(Engine::Other, 500), Ok(()));
        assert_eq!(judge(Engine::LlamaCpp, 503), Err("loading the model".into()));
    }

    #[test]
    fn no_check_starts_an_inference() {
        for engine in ENGINES {
            assert!(
                matches!(ask(Some(engine)), Ask::Get("/health" | "/api/version" | "/v1/models")),
                "{engine:?}"
            );
        }
        assert_eq!(ask(None), Ask::Connect);
    }
}
