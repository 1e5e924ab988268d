//! How values are written in answers: ids and times as text, money as exact numbers.

use std::fmt::Display;

use jiff::Timestamp;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::units::{PicoUsd, UnixMs};

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

/// Money as a JSON number with all its decimals: no float comes near it.
pub(super) struct Dollars(pub(super) PicoUsd);

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(decimal(self.0))
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

/// Whole dollars, a point, and the decimals that are not trailing zeros.
pub(super) fn decimal(PicoUsd(pico): PicoUsd) -> String {
    const PER_DOLLAR: u128 = 1_000_000_000_000;
    let (dollars, fraction) = (pico / PER_DOLLAR, pico % PER_DOLLAR);
    if fraction == 0 {
        return dollars.to_string();
    }
    let digits = format!("{fraction:012}");
    format!("{dollars}.{}", digits.trim_end_matches('0'))
}

/// Writes an answer's body. Made of text, numbers and lists under text keys: serde_json cannot fail on it.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
