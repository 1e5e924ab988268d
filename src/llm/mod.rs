//! The languages of inference servers, as bytes: what a request asks, what an answer used.
//!
//! A request is read once ([`read`]), in one pass that checks the JSON and notes where things are; what must change is
//! spliced into the bytes ([`rewrite`]), so that number spellings, unknown fields and key order survive. An answer runs
//! through a [`Tap`], which counts tokens and finds the reported usage without keeping the answer. The gateway's own words
//! ([`error_body`], [`models_body`]) are written in the client's dialect.
//!
//! Promises: nothing here panics on what a client or an upstream sends; every buffer has a named bound; text is never
//! taken for structure (a prompt or an answer that talks of `"usage"` changes nothing).

mod answer;
mod fault;
mod json;
mod multipart;
mod output;
mod request;
mod rewrite;
mod route;
mod scan;
mod tap;
mod usage;

pub use answer::{ErrorBody, ListedModel, error_body, error_event, model_body, models_body};
pub use fault::BodyFault;
pub use request::{Members, Parsed, read};
pub use rewrite::{Extras, rewrite};
pub use route::{Dialect, Route};
pub use tap::Tap;
pub use usage::Usage;

/// Where something lies in a body: byte offsets, the end excluded.
pub type Span = std::ops::Range<usize>;
