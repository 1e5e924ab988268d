//! What is noted of a request while it runs, so that its end can tell its spans: when each step began and ended, and under
//! which span each attempt goes up. Feature `otel`; without it [`Trace`] is nothing and every call on it is nothing.

#[cfg(feature = "otel")]
mod noted;
#[cfg(not(feature = "otel"))]
mod nothing;
#[cfg(feature = "otel")]
mod told;

#[cfg(not(feature = "otel"))]
pub(super) use nothing::{Trace, tell};
#[cfg(feature = "otel")]
pub(super) use {noted::Trace, told::tell};

/// A step that has a span of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Who asks.
    Auth,
    /// Whether there is an answer already. A hit, and an answer that comes for another, is sent within it.
    Cache,
    /// The wait for a slot.
    Queue,
}
