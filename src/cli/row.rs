//! An object of the management API as the command line shows it.
//!
//! Numbers stay the digits that the gateway sent: money is exact there, and must not become a float on its way to a bill.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One object: as it came, and its fields.
#[derive(Debug, Clone)]
pub(super) struct Row {
    text: Box<RawValue>,
    fields: BTreeMap<String, Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(from)?;
        let fields = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { text, fields })
    }
}

impl Row {
    /// As it came.
    pub(super) fn json(&self) -> &str {
        self.text.get()
    }

    /// The names of its fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// A field as it came; `null` where there is none.
    pub(super) fn raw(&self, field: &str) -> &str {
        self.fields.get(field).map_or("null", |value| value.get())
    }

    /// A field of a known shape.
    pub(super) fn get<'a, T: Deserialize<'a>>(&'a self, field: &str) -> Option<T> {
        serde_json::from_str(self.raw(field)).ok()
    }

    /// Adds a text that the table shows beside what came.
    ///
    /// # Errors
    /// None that can happen: a text is JSON.
    pub(super) fn add(&mut self, field: &str, text: &str) -> serde_json::Result<()> {
        self.fields.insert(field.to_owned(), serde_json::value::to_raw_value(text)?);
        Ok(())
    }

    /// A field for people: text without quotes, a list's items in a row, `-` where there is nothing.
    pub(super) fn shown(&self, field: &str) -> String {
        let raw = self.raw(field);
        if let Some(text) = self.get::<String>(field) {
            return if text.is_empty() { "-".to_owned() } else { text };
        }
        if let Some(items) = self.get::<Vec<String>>(field) {
            return if items.is_empty() { "none".to_owned() } else { items.join(",") };
        }
        if raw == "null" { "-".to_owned() } else { raw.to_owned() }
    }

    /// A limit for people: 0 is none.
    pub(super) fn limit(&self, field: &str) -> String {
        match self.raw(field) {
            "0" => "-".to_owned(),
            _ => self.shown(field),
        }
    }

    /// A share for people.
    pub(super) fn number(&self, field: &str) -> f64 {
        self.get(field).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stay_as_they_came() {
        let row: Row =
            serde_json::from_str(r#"{"cost": 123456789012.000000000001, "name": "a", "tags": ["x", "y"], "none": null}"#).unwrap();
        assert_eq!(row.shown("cost"), "123456789012.000000000001");
        assert_eq!((row.shown("name"), row.shown("tags")), ("a".to_owned(), "x,y".to_owned()));
        assert_eq!((row.shown("none"), row.shown("absent")), ("-".to_owned(), "-".to_owned()));
    }
}
