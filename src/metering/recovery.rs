//! Reading segments: at start all that an earlier process left.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::aside::{self, Aside, Delivery};
use super::codec::{self, Found, Read};
use super::ticket::{Delivered, Intent};
use super::{OpenError, Row, Sink, spool};
use crate::id::RequestId;
use crate::store::ledger::{Cursor, WriteError};

/// Rows per transaction.
const BATCH: usize = 1_024;

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Where to go on.
    pub(super) next_segment: u64,
    /// Damaged stretches that were skipped.
    pub(super) damaged: u64,
    /// What the store refuses.
    pub(super) aside: Aside,
    /// Requests that nobody had settled.
    pub(super) interrupted: usize,
}

/// Moves every row of the segments to the sink, rows of requests that nobody settled included, and deletes the segments.
/// Done twice, it does no more than once: also when the process dies in the middle.
pub(super) fn recover(dir: &Path, sink: &dyn Sink) -> Result<Recovered, OpenError> {
    let io_error = |source: io::Error| OpenError::Spool {
        path: dir.to_owned(),
        source,
    };
    spool::make_dir(dir).map_err(io_error)?;
    let segments = spool::segments(dir).map_err(io_error)?;
    let unavailable = |error: WriteError| OpenError::Store(error.to_string());
    let moved = sink.cursor().map_err(unavailable)?;
    let aside = Aside::open(dir, sink, moved).map_err(io_error)?;
    let mut stored = moved;
    let mut store = |rows: &mut Vec<Row>, cursor: Cursor| match aside::deliver(sink, &aside, std::mem::take(rows), (stored, cursor)) {
        Delivery::Done(_) => {
            stored = cursor;
            Ok(())
        }
        Delivery::Later(_, why) => Err(OpenError::Store(why)),
    };
    let mut open: HashMap<RequestId, (Intent, Delivered)> = HashMap::new();
    let mut rows = Vec::new();
    let mut damaged = 0;
    for segment in &segments {
        let bytes = std::fs::read(spool::path(dir, *segment)).map_err(io_error)?;
        let mut offset = 0;
        while let Some((record, next, skipped)) = next_record(&bytes, offset) {
            offset = next;
            damaged += u64::from(skipped);
            let cursor = Cursor {
                segment: *segment,
                offset: offset as u64,
            };
            if let Some(row) = note(&mut open, record)
                && cursor > moved
            {
                rows.push(row);
            }
            if rows.len() == BATCH {
                store(&mut rows, cursor)?;
            }
        }
    }
    let interrupted = open.len();
    // One that was settled before it was carried is here again; its row is there already and stays.
    rows.extend(
        open.into_values()
            .map(|(intent, delivered)| intent.interrupted(delivered, Duration::ZERO)),
    );
    let next_segment = segments.last().copied().unwrap_or(0).max(moved.segment) + 1;
    let cursor = Cursor {
        segment: next_segment,
        offset: 0,
    };
    store(&mut rows, cursor)?;
    for segment in segments {
        std::fs::remove_file(spool::path(dir, segment)).map_err(io_error)?;
    }
    Ok(Recovered {
        next_segment,
        damaged,
        aside,
        interrupted,
    })
}

pub(super) fn note(open: &mut HashMap<RequestId, (Intent, Delivered)>, record: Read) -> Option<Row> {
    match record {
        Read::Intent(intent) => {
            open.insert(intent.request_id, (intent, Delivered::default()));
            None
        }
        Read::Carried(intent, delivered) => {
            open.entry(intent.request_id).or_insert((intent, delivered));
            None
        }
        Read::Progress(id, delivered) => {
            if let Some((_, before)) = open.get_mut(&id) {
                *before = delivered;
            }
            None
        }
        Read::Settle(row) => {
            open.remove(&row.request_id);
            Some(row)
        }
    }
}

/// The next record from `offset` on, where the one after it begins, and whether damage was skipped on the way. `None` at
/// the end, a torn one included.
pub(super) fn next_record(bytes: &[u8], offset: usize) -> Option<(Read, usize, bool)> {
    (offset..bytes.len()).find_map(|at| match codec::read(&bytes[at..]) {
        Found::Record(record, length) => Some((*record, at + length, at > offset)),
        Found::Part | Found::Damage => None,
    })
}
