//! Walks the audit log's hash chain: in a store that is open, and in a file that another process may be writing.
//!
//! The walk goes in pieces, each in a read transaction of its own, so that a long log neither holds up a query nor keeps a
//! running gateway from moving its WAL home. Rows are only ever added, so pieces of different moments fit together.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rusqlite::Connection;

use super::audit::{COLUMNS, GENESIS, Raw};
use super::{OpenError, READ, ReadError, Store, open};

/// How many rows are walked in one query.
const WALK: i64 = 5_000;

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

/// A row and its hash. It stands for all rows up to this one: who noted it down can tell later that none of them was
/// written anew, hashes and all. Written `row:hash`, the hash in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The row; 0 is before the first.
    pub seq: u64,
    hash: [u8; 32],
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What was given is no [`Head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a row and its hash, like 12:, followed by 64 hexadecimal digits")]
pub struct NoHead;

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (seq, digits) = text.split_once(':').ok_or(NoHead)?;
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoHead);
        }
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            let pair = digits.get(at..at + 2).ok_or(NoHead)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NoHead)?;
        }
        Ok(Self {
            seq: seq.parse().map_err(|_| NoHead)?,
            hash,
        })
    }
}

/// What [`verify_file`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The chain by itself.
    pub chain: Chain,
    /// The last row that fits.
    pub head: Head,
    /// Whether the chain goes through the row that was noted down before; `None` where none was given.
    pub as_noted: Option<bool>,
}

/// Walks the audit log of a store file from its first row, without writing to it and without its lock: a gateway may run
/// on it. `noted` is a head that somebody kept elsewhere. `walked` hears after each piece how many rows are done. Blocks.
///
/// # Errors
/// [`OpenError`]: there is no such file, it is no store, or it cannot be read.
pub fn verify_file(path: &Path, noted: Option<Head>, mut walked: impl FnMut(u64)) -> Result<Verdict, OpenError> {
    let connection = open::inspect(path)?;
    let mut walk = Walk::new(noted);
    loop {
        let chain = match walk.on(&connection).map_err(|error| open::sqlite_error(path, &error))? {
            (next, None) => {
                walk = next;
                walked(next.head.seq);
                continue;
            }
            (last, Some(chain)) => {
                walk = last;
                chain
            }
        };
        return Ok(Verdict {
            chain,
            head: walk.head,
            as_noted: noted.map(|_| walk.as_noted),
        });
    }
}

impl Store {
    /// Walks the audit log's hash chain from its first row.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn verify_audit(&self) -> Result<Chain, ReadError> {
        let mut walk = Walk::new(None);
        loop {
            match self.read(READ, move |connection| walk.on(connection)).await? {
                (next, None) => walk = next,
                (_, Some(chain)) => return Ok(chain),
            }
        }
    }
}

/// How far the chain has been walked.
#[derive(Clone, Copy)]
struct Walk {
    head: Head,
    noted: Option<Head>,
    as_noted: bool,
}

impl Walk {
    fn new(noted: Option<Head>) -> Self {
        let head = Head { seq: 0, hash: GENESIS };
        Self {
            head,
            noted,
            as_noted: noted == Some(head),
        }
    }

    /// Goes on by up to [`WALK`] rows; at the end compares with how many there should be, in the same snapshot.
    fn on(mut self, connection: &Connection) -> rusqlite::Result<(Self, Option<Chain>)> {
        let snapshot = connection.unchecked_transaction()?;
        let expected: i64 = snapshot.query_row("SELECT audit_rows FROM state", [], |row| row.get(0))?;
        let expected = expected.unsigned_abs();
        let mut statement = snapshot.prepare_cached(&format!("SELECT {COLUMNS} FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2"))?;
        let mut rows = statement.query((self.head.seq.cast_signed(), WALK))?;
        let mut walked = 0;
        while let Some(row) = rows.next()? {
            let seq = self.head.seq + 1;
            let broken = Some(Chain::Broken { seq });
            // A row that cannot even be read was not written by us.
            let Ok(row) = Raw::read(row) else { return Ok((self, broken)) };
            if row.seq != seq.cast_signed() || seq > expected || row.hash_after(&self.head.hash) != row.hash {
                return Ok((self, broken));
            }
            self.head = Head { seq, hash: row.hash };
            self.as_noted |= self.noted == Some(self.head);
            walked += 1;
        }
        if walked == WALK {
            return Ok((self, None));
        }
        let rows = self.head.seq;
        let chain = if rows == expected {
            Chain::Intact { rows }
        } else {
            Chain::Broken { seq: rows + 1 }
        };
        Ok((self, Some(chain)))
    }
}
