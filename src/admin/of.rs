//! The object that a path names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::desk::Noun;
use super::problem::Problem;

/// The id of an object of a noun, from the one parameter of the path. Whether it exists is another question; what cannot be
/// an id is answered like one that does not exist.
pub(super) struct Of<N: Noun>(pub(super) N::Id);

impl<N: Noun, S: Send + Sync> FromRequestParts<S> for Of<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Path<String> = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::no_such(N::NAME))?;
        N::read_id(&path.0).map(Self).ok_or_else(|| Problem::no_such(N::NAME))
    }
}
