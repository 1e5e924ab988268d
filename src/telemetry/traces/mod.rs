//! OpenTelemetry traces, behind the feature `otel`: spans of requests that have ended, sent to a collector by OTLP over HTTP.
//!
//! No OpenTelemetry crate is behind it. Spans are made at the end of a request, from times that are known by then, so there is
//! nothing for a tracing library to do meanwhile; what is left is the W3C header ([`Context`]), a dozen messages of one schema
//! (`otlp`) and a queue that must drop rather than wait (`exporter`).
//!
//! Without the feature [`Traces`] is nothing and does nothing.

#[cfg(feature = "otel")]
mod context;
#[cfg(feature = "otel")]
mod exporter;
#[cfg(feature = "otel")]
mod otlp;
#[cfg(feature = "otel")]
mod post;
#[cfg(feature = "otel")]
mod span;

#[cfg(feature = "otel")]
pub use context::{Context, Remote, SpanId, TraceId};
#[cfg(feature = "otel")]
pub use exporter::{Settings, Traces};
#[cfg(feature = "otel")]
pub use post::{Collector, Unusable};
#[cfg(feature = "otel")]
pub use span::{Finished, Kind, Span, Value};

/// What became of requests that were to be traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests whose spans the collector took.
    pub exported: u64,
    /// Requests whose spans found the queue full.
    pub queue_full: u64,
    /// Requests whose spans the collector did not take.
    pub not_taken: u64,
}

/// No traces: this build has none.
#[cfg(not(feature = "otel"))]
#[derive(Debug, Clone)]
pub struct Traces;

#[cfg(not(feature = "otel"))]
impl Traces {
    /// Zeros.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// There is nothing to wait for.
    #[must_use]
    pub fn flush(&self, _within: std::time::Duration) -> bool {
        true
    }
}
