//! Who may use the management API: the bearer of the admin token.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::credential;
use crate::limits::Failures;

/// Below this many bytes a token is worth a warning at start.
const TOKEN_STRONG: usize = 32;
/// The admin token, as its digest: comparing digests hides length and content alike.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    digest: [u8; 32],
    weak: bool,
}

/// The token cannot be sent in a header, or is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the admin token must be visible ASCII characters without spaces, at least one")]
pub struct UnusableToken;

impl AdminToken {
    /// Takes the token in.
    ///
    /// # Errors
    /// [`UnusableToken`].
    pub fn new(token: &str) -> Result<Self, UnusableToken> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UnusableToken);
        }
        Ok(Self {
            digest: Sha256::digest(token).into(),
            weak: token.len() < TOKEN_STRONG,
        })
    }

    /// Whether it is so short that the operator should be warned.
    #[must_use]
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    fn matches(&self, presented: &[u8]) -> bool {
        credential::same(&self.digest, &Sha256::digest(presented))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(hidden)")
    }
}

/// The peer of a connection; the server puts it into each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The doorkeeper of everything under `/api/v1`.
#[derive(Clone)]
pub(super) struct Doorkeeper {
    token: AdminToken,
    failures: Arc<Failures>,
}

impl Doorkeeper {
    pub(super) const fn new(token: AdminToken, failures: Arc<Failures>) -> Self {
        Self { token, failures }
    }

    /// A right token always passes: checking costs less than refusing, and a flood must not lock the operator out.
    pub(super) fn admit(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(), Problem> {
        let presented = bearer(headers);
        if presented.is_some_and(|token| self.token.matches(token)) {
            return Ok(());
        }
        if let Err(too_many) = self.failures.count(peer) {
            return Err(Problem {
                retry_after: u32::try_from(too_many.retry_after.as_secs()).ok(),
                ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", too_many.to_string())
            });
        }
        let detail = if presented.is_some() {
            "the admin token is not the right one"
        } else {
            "the request needs the header Authorization: Bearer <admin token>"
        };
        Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
    }
}

/// Lets the bearer of the token in.
pub(super) async fn authenticate(State(doorkeeper): State<Doorkeeper>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    match doorkeeper.admit(request.headers(), peer) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The token presented. Two `Authorization` headers are none: which one counts would be a guess.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else {
        return None;
    };
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = value.split_at(space);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}
