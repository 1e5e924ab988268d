//! The types of fields: each reads its JSON, says what it refuses, and describes itself as JSON Schema. One place, so that
//! what is checked and what is documented cannot differ.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use url::Url;

use super::draft::{Draft, Mode};
use super::fault::Faults;
use super::fields::{Fields, join};
use super::number;
use crate::catalog::Word;
use crate::pricing;
use crate::units::{PicoUsd, UnixMs, Weight};

/// How a field is read and described.
pub(super) trait Value {
    /// What it is inside.
    type Out;
    /// Whether it is never shown, and answers have `<field>_set` instead.
    const WRITE_ONLY: bool = false;

    /// Reads it; `None` after a fault was added.
    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Self::Out>;

    /// Its JSON Schema (2020-12), without description and default.
    fn schema() -> Json;
}

/// `true` or `false`.
pub(super) enum Flag {}

impl Value for Flag {
    type Out = bool;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<bool> {
        let flag = serde_json::from_str(raw.get()).ok();
        said(flag, at, faults, || "must be true or false".to_owned())
    }

    fn schema() -> Json {
        json!({"type": "boolean"})
    }
}

/// An integer from `MIN` to `MAX`. `100.0` and `1e2` are integers too, as JSON Schema has it.
pub(super) struct Whole<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Value for Whole<T, MIN, MAX> {
    type Out = T;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<T> {
        let number = number::integer(raw.get()).filter(|number| (MIN..=MAX).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        said(number, at, faults, || format!("must be an integer from {MIN} to {MAX}"))
    }

    fn schema() -> Json {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// A weight among siblings.
pub(super) enum Share {}

impl Value for Share {
    type Out = Weight;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Weight> {
        // What is no integer at all is outside the range, like 0.
        let weight = Weight::new(number::integer(raw.get()).unwrap_or(0));
        weight.map_err(|error| faults.add(at, error.to_string())).ok()
    }

    fn schema() -> Json {
        json!({"type": "integer", "minimum": Weight::MIN, "maximum": Weight::MAX})
    }
}

/// One line of `MIN` to `MAX` characters, none of them a control character.
pub(super) struct Line<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Value for Line<MIN, MAX> {
    type Out = String;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<String> {
        let line = text(raw).filter(|line| (MIN..=MAX).contains(&line.chars().count()) && !line.chars().any(char::is_control));
        said(line, at, faults, || {
            format!("must be text of {MIN} to {MAX} characters, none of them a control character")
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "minLength": MIN, "maxLength": MAX, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
    }
}

/// Free text of up to `MAX` characters.
pub(super) struct Prose<const MAX: usize>;

impl<const MAX: usize> Value for Prose<MAX> {
    type Out = String;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<String> {
        let prose = text(raw).filter(|prose| prose.chars().count() <= MAX);
        said(prose, at, faults, || format!("must be text of at most {MAX} characters"))
    }

    fn schema() -> Json {
        json!({"type": "string", "maxLength": MAX})
    }
}

/// The form of a text with a rule of its own.
pub(super) trait Form {
    /// Ends the sentence "must be …".
    const MUST_BE: &'static str;
    /// The same rule as a regular expression.
    const PATTERN: &'static str;
    /// Whether a text keeps it.
    fn fits(text: &str) -> bool;
}

/// Text of a form.
pub(super) struct Formed<F>(PhantomData<F>);

impl<F: Form> Value for Formed<F> {
    type Out = String;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<String> {
        let formed = text(raw).filter(|text| F::fits(text));
        said(formed, at, faults, || format!("must be {}", F::MUST_BE))
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": F::PATTERN})
    }
}

/// One of an enumeration's words.
pub(super) struct OneOf<W>(PhantomData<W>);

impl<W: Word> Value for OneOf<W> {
    type Out = W;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<W> {
        let value = text(raw).and_then(|word| W::from_word(&word));
        said(value, at, faults, || format!("must be one of {}", W::NAMES.join(", ")))
    }

    fn schema() -> Json {
        json!({"type": "string", "enum": W::NAMES})
    }
}

/// An id of another object.
pub(super) struct IdOf<I>(PhantomData<I>);

impl<I: FromStr + Display> Value for IdOf<I> {
    type Out = I;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<I> {
        let id = text(raw).and_then(|text| text.parse().ok());
        said(id, at, faults, || "must be a UUID".to_owned())
    }

    fn schema() -> Json {
        json!({"type": "string", "format": "uuid"})
    }
}

/// Dollars, as a number or as decimal text, with at most twelve decimals.
pub(super) enum Money {}

impl Value for Money {
    type Out = PicoUsd;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<PicoUsd> {
        let amount = pricing::parse(&text(raw).unwrap_or_else(|| raw.get().to_owned()));
        amount.map_err(|error| faults.add(at, error.to_string())).ok()
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1_000_000_000},
            {"type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,12})?$"},
        ]})
    }
}

/// A point of time, RFC 3339 with an offset; kept to the millisecond.
pub(super) enum Moment {}

impl Value for Moment {
    type Out = UnixMs;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<UnixMs> {
        let moment = text(raw).and_then(|text| text.parse::<Timestamp>().ok());
        said(moment.map(|moment| UnixMs(moment.as_millisecond())), at, faults, || {
            "must be a time as in RFC 3339, like 2027-01-31T12:00:00Z".to_owned()
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "format": "date-time"})
    }
}

/// An absolute URL. Whether the gateway may go there is the egress policy's matter.
pub(super) enum Address {}

impl Value for Address {
    type Out = Url;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Url> {
        let url = text(raw).filter(|text| text.len() <= 2048).and_then(|text| Url::parse(&text).ok());
        said(url.filter(|url| url.has_host()), at, faults, || {
            "must be an absolute http or https URL of at most 2048 bytes".to_owned()
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "maxLength": 2048, "pattern": "^https?://"})
    }
}

/// Up to `MAX` values, each once.
pub(super) struct SetOf<V, const MAX: usize>(PhantomData<V>);

impl<V: Value<Out: PartialEq>, const MAX: usize> Value for SetOf<V, MAX> {
    type Out = Vec<V::Out>;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Self::Out> {
        let mut set: Vec<V::Out> = Vec::new();
        let mut whole = true;
        for (index, item) in items(raw, 0, MAX, at, faults)?.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            match V::read(item, &at, faults) {
                Some(value) if set.contains(&value) => {
                    faults.add(&at, "is given twice");
                    whole = false;
                }
                Some(value) => set.push(value),
                None => whole = false,
            }
        }
        whole.then_some(set)
    }

    fn schema() -> Json {
        json!({"type": "array", "items": V::schema(), "maxItems": MAX, "uniqueItems": true})
    }
}

/// One to `MAX` objects.
pub(super) struct Several<D, const MAX: usize>(PhantomData<D>);

impl<D: Draft, const MAX: usize> Value for Several<D, MAX> {
    type Out = Vec<D>;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Vec<D>> {
        let items = items(raw, 1, MAX, at, faults)?;
        let read = |(index, item): (usize, &RawValue)| {
            let at = format!("{at}[{index}]");
            let mut fields = Fields::of(item, &at, faults)?;
            Some(D::take(&mut fields, &at, Mode::Nested, faults))
        };
        let objects: Vec<Option<D>> = items.into_iter().enumerate().map(read).collect();
        objects.into_iter().collect()
    }

    fn schema() -> Json {
        json!({"type": "array", "items": D::schema(Mode::Nested), "minItems": 1, "maxItems": MAX})
    }
}

/// Short texts by free names.
pub(super) enum Labels {}

impl Value for Labels {
    type Out = BTreeMap<String, String>;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Self::Out> {
        let pairs = Fields::of(raw, at, faults)?.into_pairs();
        if pairs.len() > 64 {
            faults.add(at, "must have at most 64 entries");
            return None;
        }
        let mut labels = BTreeMap::new();
        for (name, value) in pairs {
            let at = join(at, &name);
            if !(1..=128).contains(&name.chars().count()) {
                faults.add(&at, "must have a name of 1 to 128 characters");
            } else if let Some(value) = Prose::<4096>::read(value, &at, faults) {
                labels.insert(name, value);
            }
        }
        Some(labels)
    }

    fn schema() -> Json {
        json!({
            "type": "object", "maxProperties": 64, "propertyNames": {"type": "string", "minLength": 1, "maxLength": 128},
            "additionalProperties": Prose::<4096>::schema(),
        })
    }
}

/// A value, or `null` for none.
pub(super) struct Maybe<V>(PhantomData<V>);

impl<V: Value> Value for Maybe<V> {
    type Out = Option<V::Out>;
    const WRITE_ONLY: bool = V::WRITE_ONLY;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Self::Out> {
        V::read(raw, at, faults).map(Some)
    }

    fn schema() -> Json {
        nullable(V::schema())
    }
}

/// The schema that also takes `null`.
pub(super) fn nullable(mut schema: Json) -> Json {
    if let Some(words) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        words.push(Json::Null);
    }
    match schema.get_mut("type") {
        Some(Json::String(one)) => schema["type"] = json!([*one, "null"]),
        Some(Json::Array(several)) if !several.contains(&json!("null")) => several.push(json!("null")),
        Some(_) => {}
        None => {
            let null = json!({"type": "null"});
            if let Some(branches) = schema.get_mut("anyOf").and_then(Json::as_array_mut)
                && !branches.contains(&null)
            {
                branches.push(null);
            }
        }
    }
    schema
}

/// A JSON string's text.
pub(super) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Adds the fault where there is no value.
pub(super) fn said<T>(value: Option<T>, at: &str, faults: &mut Faults, must: impl FnOnce() -> String) -> Option<T> {
    if value.is_none() {
        faults.add(at, must());
    }
    value
}

fn items<'a>(raw: &'a RawValue, min: usize, max: usize, at: &str, faults: &mut Faults) -> Option<Vec<&'a RawValue>> {
    let items: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok();
    said(items.filter(|items| (min..=max).contains(&items.len())), at, faults, || {
        format!("must be a list of {min} to {max} entries")
    })
}
