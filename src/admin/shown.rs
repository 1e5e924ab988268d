//! How values are written in answers: ids and times as text. (Money is [`Usd`](crate::pricing::Usd).)

use std::fmt::Display;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::units::UnixMs;

/// Writes an id or URL as its text.
pub(super) fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A point of time as RFC 3339 in UTC, to the millisecond.
pub(super) struct Time(pub(super) UnixMs);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_millisecond(self.0.0).unwrap_or(if self.0.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

/// Writes an answer's body. Made of text, numbers and lists under text keys: serde_json cannot fail on it.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
