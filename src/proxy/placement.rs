//! What the choice of an endpoint goes by, where the model's policy asks for more than load.

use http::HeaderMap;

use crate::catalog::{LoadBalancing, Model};
use crate::id::TenantId;
use crate::llm::Parsed;
use crate::upstreams::{Blocks, Hint, session_of};

/// Headers in which a client names its session; the first that is there counts.
const SESSION_HEADERS: [&str; 2] = ["x-session-id", "session_id"];
/// The longest session id that goes into the ledger, in bytes.
const SESSION_ID_MAX: usize = 128;

/// Hashes of the request's session and of its prompt's blocks, as far as they are asked for.
#[derive(Default)]
pub(super) struct Placement {
    session: Option<u64>,
    prefix: Option<Box<Blocks>>,
}

impl Placement {
    /// Reads what the model's policy needs, and nothing under a policy that goes by load alone.
    pub(super) fn of(model: &Model, tenant: TenantId, headers: &HeaderMap, parsed: &Parsed, body: &[u8]) -> Self {
        let members = &parsed.members;
        let lies_at = |span: &Option<std::ops::Range<usize>>| span.as_ref().and_then(|span| body.get(span.clone()));
        let [system, prompt] = [&members.system, &members.prompt].map(|span| lies_at(span).unwrap_or_default());
        match model.load_balancing {
            LoadBalancing::LeastRequest | LoadBalancing::RoundRobin => Self::default(),
            LoadBalancing::Session => {
                let named = named(headers).or_else(|| lies_at(&members.prompt_cache_key));
                Self {
                    session: session_of(tenant, named, system, prompt),
                    prefix: None,
                }
            }
            LoadBalancing::Prefix => Self {
                session: None,
                prefix: Some(Box::new(Blocks::of(&[system, prompt], 0))),
            },
        }
    }

    /// For the choice.
    pub(super) fn hint(&self) -> Hint<'_> {
        Hint {
            session: self.session,
            prefix: self.prefix.as_ref().map_or(&[], |blocks| blocks.as_slice()),
        }
    }
}

fn named(headers: &HeaderMap) -> Option<&[u8]> {
    SESSION_HEADERS
        .iter()
        .find_map(|name| headers.get(*name))
        .map(|value| value.as_bytes())
}

/// The session id as it goes into the ledger: visible ASCII of bounded length, else none.
pub(super) fn session_id(headers: &HeaderMap) -> Option<&str> {
    let id = named(headers)?;
    let fit = (1..=SESSION_ID_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    fit.then(|| std::str::from_utf8(id).ok()).flatten()
}
