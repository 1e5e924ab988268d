//! The audit log: append-only, hash-chained, read newest first.

use super::Source;
use crate::id::AuditId;
use crate::units::UnixMs;

/// Which audit rows to read. All filters are exact; `None` is any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To which noun.
    pub entity_type: Option<String>,
    /// To which object.
    pub entity_id: Option<String>,
    /// Only rows older than this `seq`: the last one of the page before.
    pub before: Option<u64>,
    /// How many at most: 1 to 1000; others are clamped.
    pub limit: u32,
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Its place in the log, from 1 without gaps; the cursor.
    pub seq: u64,
    /// Its id.
    pub id: AuditId,
    /// When it happened.
    pub ts: UnixMs,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To which noun.
    pub entity_type: String,
    /// To which object.
    pub entity_id: String,
    /// Before and after of the changed fields.
    pub detail: serde_json::Value,
    /// By which way.
    pub source: Source,
    /// The management request's id.
    pub request_id: String,
}

/// What a walk along the hash chain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Every row is as it was written, and none is missing.
    Intact {
        /// How many there are.
        rows: u64,
    },
    /// A row was altered, removed or slipped in.
    Broken {
        /// The first row that does not fit the ones before it.
        seq: u64,
    },
}
