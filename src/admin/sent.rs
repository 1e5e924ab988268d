//! A request as handlers take it: who sent it, on what condition, and its body.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sha2::{Digest, Sha256};

use super::condition::IfMatch;
use super::draft::{Draft, Mode};
use super::envelope::Rid;
use super::fault::Faults;
use super::fields::Fields;
use super::problem::Problem;
use crate::store::{Author, Idempotency, Source};

/// The largest body that is read.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How much of a larger one is read and thrown away, so that the client gets to see the refusal instead of a reset.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

const ACTOR: &str = "x-obleth-audit-actor";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A mutation's request.
#[derive(Debug)]
pub(super) struct Sent {
    /// For the audit log.
    pub(super) author: Author,
    /// The version it is meant for.
    pub(super) if_match: IfMatch,
    body: Bytes,
}

impl Sent {
    /// Reads the body as a draft. Faults are left open: what the handler finds in the values is added to them.
    ///
    /// # Errors
    /// 400 if the body is not JSON.
    pub(super) fn draft<D: Draft>(&self, mode: Mode) -> Result<(D, Faults), Problem> {
        let mut faults = Faults::default();
        let Some(mut fields) = Fields::parse(&self.body, &mut faults)? else {
            // It is no object: that all its fields are missing is no news.
            return Err(Problem::invalid(faults.into_vec()));
        };
        let draft = D::take(&mut fields, "", mode, &mut faults);
        Ok((draft, faults))
    }

    /// The same for a body that may be left out.
    pub(super) fn optional_draft<D: Draft>(&self) -> Result<(D, Faults), Problem> {
        if self.body.is_empty() {
            let mut faults = Faults::default();
            let draft = D::take(&mut Fields::default(), "", Mode::Create, &mut faults);
            return Ok((draft, faults));
        }
        self.draft(Mode::Create)
    }

    /// A body whose values need no second look.
    pub(super) fn checked<D: Draft>(&self, mode: Mode) -> Result<D, Problem> {
        let (draft, faults) = self.draft(mode)?;
        faults.check()?;
        Ok(draft)
    }
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let request_id = parts.extensions.get::<Rid>().map(|rid| rid.0.to_string()).unwrap_or_default();
        let if_match = IfMatch::read(&parts.headers)?;
        let actor = actor(&parts.headers)?;
        let key = if parts.method == Method::POST {
            idempotency_key(&parts.headers)?
        } else {
            None
        };
        let body = if parts.method == Method::DELETE {
            Bytes::new()
        } else {
            read(&parts.headers, body).await?
        };
        let idempotency = key.map(|key| Idempotency {
            key,
            digest: digest(&parts.method, &parts.uri, &body),
        });
        Ok(Self {
            author: Author {
                actor,
                source: Source::Api,
                request_id,
                idempotency,
            },
            if_match,
            body,
        })
    }
}

/// Who is named in the audit log.
fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(ACTOR) else {
        return Ok("admin".to_owned());
    };
    std::str::from_utf8(value.as_bytes())
        .ok()
        .map(str::trim)
        .filter(|actor| (1..=256).contains(&actor.chars().count()) && !actor.chars().any(char::is_control))
        .map(str::to_owned)
        .ok_or_else(|| Problem::invalid_at(ACTOR, "must be 1 to 256 visible characters"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| second.is_none() && (1..=255).contains(&key.len()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| Problem::invalid_at(IDEMPOTENCY_KEY, "must be one value of 1 to 255 visible ASCII characters"))
}

/// What makes two requests the same: method, path and body, with their lengths so that nothing can move between them.
fn digest(method: &Method, uri: &Uri, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [method.as_str().as_bytes(), uri.path().as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "bodies are read without Content-Encoding",
        ));
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(headers, body)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "the body did not arrive in time",
        )),
    }
}

async fn collect(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // `Expect: 100-continue`: the client waits to hear that its body is wanted.
    let waits = headers.contains_key(header::EXPECT);
    if waits && announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    match Limited::new(&mut body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            // The outcome does not matter: this only empties the socket.
            let _ = Drain {
                body,
                left: DRAIN_BYTES_MAX,
            }
            .run()
            .await;
            Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", "the body broke off")),
    }
}

/// Reads on without keeping anything.
struct Drain {
    body: Body,
    left: usize,
}

impl Drain {
    async fn run(mut self) -> Option<()> {
        while let Some(frame) = self.body.frame().await {
            let bytes = frame.ok()?.into_data().map_or(0, |data| data.len());
            self.left = self.left.checked_sub(bytes)?;
        }
        Some(())
    }
}
