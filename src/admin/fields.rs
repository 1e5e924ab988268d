//! A JSON object as it was sent: field by field, numbers in their own spelling, nothing lost and nothing twice.
//!
//! Bodies are not deserialised by serde's derive: that stops at the first fault, reads prices as floats and lets the last of
//! two equal keys win. Here each field stays raw until its [type](super::value) reads it.

use std::fmt;

use axum::http::StatusCode;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::Faults;
use super::problem::Problem;

/// The fields of an object that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 if it is not JSON. A body that is JSON but no object is a fault, and `None`.
    pub(super) fn parse(body: &'a [u8], faults: &mut Faults) -> Result<Option<Self>, Problem> {
        let not_json = |why: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {why}"));
        let raw: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(error.to_string()))?;
        Ok(Self::of(raw, "", faults))
    }

    /// Reads an object inside a body.
    pub(super) fn of(raw: &'a RawValue, at: &str, faults: &mut Faults) -> Option<Self> {
        if !raw.get().starts_with('{') {
            faults.add(at, "must be an object");
            return None;
        }
        let pairs: Pairs<'a> = match serde_json::from_str(raw.get()) {
            Ok(pairs) => pairs,
            Err(_) => {
                faults.add(at, "has a field whose name is not text");
                return None;
            }
        };
        let mut fields: Vec<(String, &RawValue)> = Vec::with_capacity(pairs.0.len());
        let mut seen = std::collections::HashSet::with_capacity(pairs.0.len());
        for (name, value) in pairs.0 {
            if seen.insert(name.clone()) {
                fields.push((name, value));
            } else {
                faults.add(&join(at, &name), "is given twice");
            }
        }
        Some(Self(fields))
    }

    /// Takes a field, if it was sent.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let index = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// What was sent and not taken.
    pub(super) fn rest(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Everything, for maps with free names.
    pub(super) fn into_pairs(self) -> Vec<(String, &'a RawValue)> {
        self.0
    }
}

/// The path of a field of the object at `at`.
pub(super) fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// An object's members in the order they were sent, repetitions included.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
