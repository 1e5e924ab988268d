//! Hierarchical start-time fair queueing in token units.

mod snapshot;

pub use snapshot::{GroupView, ModelView, Snapshot, TenantView};
