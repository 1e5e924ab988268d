//! The audit log: append-only, hash-chained, read newest first.
//!
//! Each row's hash is SHA-256 over the hash of the row before (32 zero bytes before the first) and the row's own fields,
//! each with its length in front. Who alters a row must alter every later one, and the chain's head as an operator has
//! noted it down. That the newest rows were cut off shows in `state.audit_rows`. `chain` walks it.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use sha2::{Digest, Sha256};

use super::writer::Fault;
use super::{Author, Entry, READ, ReadError, Source, Store};
use crate::catalog::Word;
use crate::id::AuditId;
use crate::units::UnixMs;

/// How many rows a page has at most.
const LIMIT_MAX: u32 = 1000;

/// Keeps these hashes apart from others over the same bytes.
const DOMAIN: &[u8] = b"obleth audit 1";

/// The hash before the first row.
pub(super) const GENESIS: [u8; 32] = [0; 32];

pub(super) const COLUMNS: &str = "seq, id, ts, actor, action, entity_type, entity_id, detail, source, request_id, hash";

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

impl Store {
    /// Reads the audit log, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRow>, ReadError> {
        self.read(READ, move |connection| page(connection, &query)).await
    }
}

/// A row as it is stored, before its words and its JSON are understood: what the hash is over.
pub(super) struct Raw {
    pub(super) seq: i64,
    id: [u8; 16],
    ts: i64,
    actor: String,
    action: String,
    entity_type: String,
    entity_id: String,
    detail: String,
    source: String,
    request_id: String,
    pub(super) hash: [u8; 32],
}

impl Raw {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            id: row.get(1)?,
            ts: row.get(2)?,
            actor: row.get(3)?,
            action: row.get(4)?,
            entity_type: row.get(5)?,
            entity_id: row.get(6)?,
            detail: row.get(7)?,
            source: row.get(8)?,
            request_id: row.get(9)?,
            hash: row.get(10)?,
        })
    }

    pub(super) fn hash_after(&self, previous: &[u8; 32]) -> [u8; 32] {
        let fields: [&[u8]; 10] = [
            &self.seq.to_be_bytes(),
            &self.id,
            &self.ts.to_be_bytes(),
            self.actor.as_bytes(),
            self.action.as_bytes(),
            self.entity_type.as_bytes(),
            self.entity_id.as_bytes(),
            self.detail.as_bytes(),
            self.source.as_bytes(),
            self.request_id.as_bytes(),
        ];
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(previous);
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }

    fn understand(self) -> AuditRow {
        AuditRow {
            seq: self.seq.unsigned_abs(),
            id: AuditId::from_bytes(self.id),
            ts: UnixMs(self.ts),
            actor: self.actor,
            action: self.action,
            entity_type: self.entity_type,
            entity_id: self.entity_id,
            // The schema lets only JSON and the three words in.
            detail: serde_json::from_str(&self.detail).unwrap_or_default(),
            source: Source::from_word(&self.source).unwrap_or(Source::Api),
            request_id: self.request_id,
        }
    }
}

/// Adds the rows of one change.
pub(super) fn append(connection: &Connection, author: &Author, entries: &[Entry], now: UnixMs) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut head = connection.prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?;
    let head = head.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (mut seq, mut hash): (i64, [u8; 32]) = head.unwrap_or((0, GENESIS));
    let mut insert = connection.prepare_cached(&format!(
        "INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?;
    for entry in entries {
        seq += 1;
        let mut row = Raw {
            seq,
            id: *AuditId::mint().as_bytes(),
            ts: now.0,
            actor: author.actor.clone(),
            action: entry.action.to_owned(),
            entity_type: entry.entity_type.to_owned(),
            entity_id: entry.entity_id.clone(),
            detail: entry.detail.to_string(),
            source: author.source.word().to_owned(),
            request_id: author.request_id.clone(),
            hash: GENESIS,
        };
        row.hash = row.hash_after(&hash);
        hash = row.hash;
        insert.execute((
            row.seq,
            row.id,
            row.ts,
            row.actor,
            row.action,
            row.entity_type,
            row.entity_id,
            row.detail,
            row.source,
            row.request_id,
            row.hash,
        ))?;
    }
    connection.prepare_cached("UPDATE state SET audit_rows = ?1")?.execute([seq])?;
    Ok(())
}

fn page(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<AuditRow>> {
    let mut sql = format!("SELECT {COLUMNS} FROM audit WHERE seq < ?");
    let before = query.before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let mut values = vec![Value::Integer(before)];
    let filters = [
        ("actor", &query.actor),
        ("action", &query.action),
        ("entity_type", &query.entity_type),
        ("entity_id", &query.entity_id),
    ];
    for (column, wanted) in filters {
        if let Some(wanted) = wanted {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(Value::Text(wanted.clone()));
        }
    }
    sql.push_str(" ORDER BY seq DESC LIMIT ?");
    values.push(Value::Integer(query.limit.clamp(1, LIMIT_MAX).into()));
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), Raw::read)?;
    rows.map(|row| row.map(Raw::understand)).collect()
}
