//! The Model Context Protocol as a gateway needs it: who calls which tool, what a list may show, whose a session is.
//!
//! Two generations share one URL. The older (2025-03-26 to 2025-11-25) has sessions, streams opened by GET, batches; the
//! newer (2026-07-28) has none of these and mirrors what routers want to know of the body into headers. Both pass through
//! as they are; what is read of them is read here.
//!
//! Promises: the body is the truth, and headers that say otherwise are refused ([`mirror`]); a tool that may not be called
//! is neither called ([`Tools`]) nor shown ([`Filter`]); bytes that need not change do not change; a session's id is of use
//! only to who was given it ([`Sealer`]). Nothing here panics on what a client or a server sends, and every buffer has a
//! named bound.

mod fault;
mod filter;
mod listing;
mod message;
pub mod mirror;
pub mod origin;
mod session;
mod tools;

#[cfg(test)]
mod tests;

pub use fault::{Refusal, RpcError, Unreadable};
pub use filter::{Filter, Unfilterable};
pub use message::{Asked, Kind, Message, read};
pub use session::{Holder, Opened, SESSION_ID_MAX, Sealer};
pub use tools::Tools;

/// What begins the name under which the ledger counts what is asked of a server, in the place of a model's:
/// `mcp:{server}/{tool}`, or `mcp:{server}` for what calls no tool.
pub const LEDGER_PREFIX: &str = "mcp:";

/// The first revision without sessions; revisions are dates, and compare as texts.
const MODERN: &str = "2026-07-28";
/// The first revision without batches.
const NO_BATCHES: &str = "2025-06-18";

/// Whether a revision is of the newer generation.
#[must_use]
pub fn is_modern(version: &str) -> bool {
    is_revision(version) && version >= MODERN
}

/// Whether a revision has no batches.
#[must_use]
pub fn forbids_batches(version: &str) -> bool {
    is_revision(version) && version >= NO_BATCHES
}

/// `YYYY-MM-DD`; of anything else nothing can be said by comparing.
fn is_revision(version: &str) -> bool {
    version.len() == MODERN.len()
        && version.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}
