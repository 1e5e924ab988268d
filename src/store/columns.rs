//! How one object becomes one row and back: values go out and come in by the order of the noun's column list.

use std::collections::BTreeMap;

use rusqlite::Row;
use rusqlite::types::{Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::vault::{SealError, Vault};
use crate::catalog::{Budget, Provenance, Word};
use crate::units::{PicoUsd, UnixMs, Weight};

/// A noun of the catalog that has a table.
pub(super) trait Stored: Sized {
    /// Its table.
    const TABLE: &'static str;
    /// The columns, the primary key first, in the order that `encode` writes and `decode` reads.
    const COLUMNS: &'static [&'static str];

    /// What is in the primary key.
    fn primary_key(&self) -> Value;

    /// Writes all columns.
    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Unstorable>;

    /// Reads all columns.
    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable>;

    /// Versions and times.
    fn provenance(&self) -> &Provenance;

    /// The same, for the store to complete.
    fn provenance_mut(&mut self) -> &mut Provenance;
}

/// Why an object cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unstorable {
    /// A credential's value, and no key to seal it with.
    NoSealingKey,
    /// Above 2⁶³ − 1: the field.
    TooLarge(&'static str),
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// SQLite said so.
    Sqlite(rusqlite::Error),
    /// A value that this program never writes.
    Bad {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// A sealed credential stays shut.
    Sealed(SealError),
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Collects a row's values, one call per column.
pub(super) struct Encoder<'a> {
    pub(super) vault: &'a Vault,
    values: Vec<Value>,
}

impl<'a> Encoder<'a> {
    pub(super) fn row<N: Stored>(noun: &N, vault: &'a Vault) -> Result<Vec<Value>, Unstorable> {
        let mut encoder = Self {
            vault,
            values: Vec::with_capacity(N::COLUMNS.len()),
        };
        noun.encode(&mut encoder)?;
        debug_assert_eq!(
            encoder.values.len(),
            N::COLUMNS.len(),
            "{} writes each of its columns once",
            N::TABLE
        );
        Ok(encoder.values)
    }

    pub(super) fn put(&mut self, value: impl Into<Value>) {
        self.values.push(value.into());
    }

    pub(super) fn put_text(&mut self, text: &str) {
        self.put(text.to_owned());
    }

    pub(super) fn put_word(&mut self, word: impl Word) {
        self.put_text(word.word());
    }

    /// SQLite's integers are signed.
    pub(super) fn put_count(&mut self, field: &'static str, count: u64) -> Result<(), Unstorable> {
        self.put(i64::try_from(count).map_err(|_| Unstorable::TooLarge(field))?);
        Ok(())
    }

    pub(super) fn put_money(&mut self, money: Option<PicoUsd>) {
        self.put(money.map(|money| money.0.to_string()));
    }

    pub(super) fn put_json<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Strings, numbers and maps with string keys: what serde_json cannot fail on.
        self.put(serde_json::to_string(value).unwrap_or_default());
    }

    pub(super) fn put_optional_json<T: Serialize>(&mut self, value: Option<&T>) {
        match value {
            Some(value) => self.put_json(value),
            None => self.put(Value::Null),
        }
    }

    pub(super) fn put_budget(&mut self, budget: &Budget) -> Result<(), Unstorable> {
        self.put_money(budget.cost);
        match budget.tokens {
            Some(tokens) => self.put_count("budget_tokens", tokens)?,
            None => self.put(Value::Null),
        }
        self.put_word(budget.period);
        Ok(())
    }

    pub(super) fn put_provenance(&mut self, provenance: &Provenance) -> Result<(), Unstorable> {
        self.put_word(provenance.managed_by);
        self.put_json(&provenance.overridden);
        self.put_count("version", provenance.version)?;
        self.put(provenance.created_at.0);
        self.put(provenance.updated_at.0);
        Ok(())
    }
}

/// Hands out a row's values, one call per column.
pub(super) struct Decoder<'a> {
    pub(super) vault: &'a Vault,
    row: &'a Row<'a>,
    table: &'static str,
    columns: &'static [&'static str],
    next: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn read<N: Stored>(row: &'a Row<'a>, vault: &'a Vault) -> Result<N, Unreadable> {
        let mut decoder = Self {
            vault,
            row,
            table: N::TABLE,
            columns: N::COLUMNS,
            next: 0,
        };
        let noun = N::decode(&mut decoder)?;
        debug_assert_eq!(decoder.next, N::COLUMNS.len(), "{} reads each of its columns once", N::TABLE);
        Ok(noun)
    }

    fn next(&mut self) -> Result<ValueRef<'a>, Unreadable> {
        let value = self.row.get_ref(self.next)?;
        self.next += 1;
        Ok(value)
    }

    /// The column just read holds what this program never writes.
    pub(super) fn bad(&self) -> Unreadable {
        let column = self.next.checked_sub(1).and_then(|index| self.columns.get(index));
        Unreadable::Bad {
            table: self.table,
            column: column.copied().unwrap_or("?"),
        }
    }

    /// NULL is `None`.
    pub(super) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Unreadable>) -> Result<Option<T>, Unreadable> {
        if matches!(self.row.get_ref(self.next)?, ValueRef::Null) {
            self.next += 1;
            return Ok(None);
        }
        read(self).map(Some)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Unreadable> {
        match self.next()? {
            ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| self.bad()),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Err(self.bad()),
        }
    }

    pub(super) fn string(&mut self) -> Result<String, Unreadable> {
        self.text().map(str::to_owned)
    }

    pub(super) fn word<W: Word>(&mut self) -> Result<W, Unreadable> {
        W::from_word(self.text()?).ok_or_else(|| self.bad())
    }

    fn integer(&mut self) -> Result<i64, Unreadable> {
        self.next()?.as_i64().map_err(|_| self.bad())
    }

    pub(super) fn number<N: TryFrom<i64>>(&mut self) -> Result<N, Unreadable> {
        N::try_from(self.integer()?).map_err(|_| self.bad())
    }

    pub(super) fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.integer()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad()),
        }
    }

    pub(super) fn time(&mut self) -> Result<UnixMs, Unreadable> {
        self.integer().map(UnixMs)
    }

    pub(super) fn weight(&mut self) -> Result<Weight, Unreadable> {
        Weight::new(self.number()?).map_err(|_| self.bad())
    }

    pub(super) fn money(&mut self) -> Result<PicoUsd, Unreadable> {
        self.text()?.parse().map(PicoUsd).map_err(|_| self.bad())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.next()?.as_blob().map_err(|_| self.bad())?;
        bytes.try_into().map_err(|_| self.bad())
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Unreadable> {
        serde_json::from_str(self.text()?).map_err(|_| self.bad())
    }

    /// A list, which is mostly empty.
    pub(super) fn list(&mut self) -> Result<Vec<String>, Unreadable> {
        match self.text()? {
            "[]" => Ok(Vec::new()),
            text => serde_json::from_str(text).map_err(|_| self.bad()),
        }
    }

    pub(super) fn map(&mut self) -> Result<BTreeMap<String, String>, Unreadable> {
        match self.text()? {
            "{}" => Ok(BTreeMap::new()),
            text => serde_json::from_str(text).map_err(|_| self.bad()),
        }
    }

    pub(super) fn budget(&mut self) -> Result<Budget, Unreadable> {
        Ok(Budget {
            cost: self.optional(Self::money)?,
            tokens: self.optional(Self::number)?,
            period: self.word()?,
        })
    }

    pub(super) fn provenance(&mut self) -> Result<Provenance, Unreadable> {
        Ok(Provenance {
            managed_by: self.word()?,
            overridden: self.list()?,
            version: self.number()?,
            created_at: self.time()?,
            updated_at: self.time()?,
        })
    }
}
