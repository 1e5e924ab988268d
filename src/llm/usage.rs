//! What an answer used, as servers report it: two conventions and a dozen spellings made into one record.
//!
//! OpenAI's `prompt_tokens` contains what came from the cache; Anthropic's `input_tokens` does not. A server may report
//! several times (cumulatively, or first the input and then the output): a field that is there replaces what was known, a
//! field that is absent or null changes nothing, and zero is a number.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Dialect;

/// Tokens as reported. Each is `None` until a server says it; `Some(0)` is a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// What the server calls input: with the cached part at OpenAI, without it at Anthropic.
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
    audio: Option<Duration>,
    /// Whether the cached parts come on top of `input`.
    cache_apart: bool,
}

impl Usage {
    /// Nothing used, and known to be nothing.
    pub(super) const NOTHING: Self = Self {
        input: Some(0),
        cache_read: None,
        cache_write: None,
        output: Some(0),
        reasoning: None,
        total: None,
        audio: None,
        cache_apart: false,
    };

    /// All input tokens, cached or not. A server that gives only a total (rerank) read that many.
    #[must_use]
    pub fn total_input(&self) -> Option<u64> {
        if self.cache_apart {
            let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
            return self.input.map(|input| input.saturating_add(cached));
        }
        self.input
            .or_else(|| self.total.map(|total| total.saturating_sub(self.output.unwrap_or(0))))
    }

    /// The input tokens read from the server's prefix cache: part of [`total_input`](Self::total_input), never more.
    #[must_use]
    pub fn cached_input(&self) -> Option<u64> {
        self.cache_read.map(|cached| cached.min(self.total_input().unwrap_or(u64::MAX)))
    }

    /// The input tokens written to the server's prefix cache: part of [`total_input`](Self::total_input).
    #[must_use]
    pub fn cache_write(&self) -> Option<u64> {
        self.cache_write
    }

    /// All output tokens, reasoning included, over all choices.
    #[must_use]
    pub fn output(&self) -> Option<u64> {
        self.output.or_else(|| Some(self.total?.saturating_sub(self.input?)))
    }

    /// The output tokens spent on reasoning: part of [`output`](Self::output).
    #[must_use]
    pub fn reasoning(&self) -> Option<u64> {
        self.reasoning
    }

    /// The length of the recording, where a server counts audio by time instead of tokens.
    #[must_use]
    pub fn audio(&self) -> Option<Duration> {
        self.audio
    }

    /// Takes in a further report.
    pub(super) fn merge(&mut self, report: &Report, dialect: Dialect) {
        self.cache_apart = dialect == Dialect::Anthropic;
        let details = [&report.prompt_tokens_details, &report.input_tokens_details];
        let cached = report
            .cache_read_input_tokens
            .0
            .or_else(|| details.iter().find_map(|details| details.cached_tokens.0));
        let written = report
            .cache_creation_input_tokens
            .0
            .or_else(|| details.iter().find_map(|details| details.cache_write_tokens.0));
        let details = [&report.completion_tokens_details, &report.output_tokens_details];
        let reasoning = details
            .iter()
            .find_map(|details| details.reasoning_tokens.0)
            .or(report.reasoning_tokens.0);
        // Some servers repeat the input in their last report as 0 without meaning it.
        let blank = self.cache_apart && report.input() == Some(0) && cached.is_none_or(|cached| Some(cached) == self.cache_read);
        if !blank || self.input.is_none() {
            replace(&mut self.input, report.input());
        }
        replace(&mut self.cache_read, cached);
        replace(&mut self.cache_write, written);
        replace(&mut self.output, report.output());
        replace(&mut self.reasoning, reasoning);
        replace(&mut self.total, report.total_tokens.0);
        replace(&mut self.audio, report.seconds.0);
    }

    pub(super) fn set_output(&mut self, tokens: u64) {
        self.output = Some(tokens);
    }
}

fn replace<T>(known: &mut Option<T>, reported: Option<T>) {
    if reported.is_some() {
        *known = reported;
    }
}

/// A `usage` object, in whatever spelling; some servers send two at once. What has the wrong type counts as absent: a report
/// must not be lost over a field that nobody needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    prompt_tokens: Count,
    input_tokens: Count,
    completion_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// SGLang's place for it.
    reasoning_tokens: Count,
    #[serde(deserialize_with = "or_default")]
    prompt_tokens_details: InputDetails,
    #[serde(deserialize_with = "or_default")]
    input_tokens_details: InputDetails,
    #[serde(deserialize_with = "or_default")]
    completion_tokens_details: OutputDetails,
    #[serde(deserialize_with = "or_default")]
    output_tokens_details: OutputDetails,
    /// Of a `usage` whose `type` is `duration`.
    seconds: Seconds,
}

impl Report {
    /// The output tokens in it.
    pub(super) fn output(&self) -> Option<u64> {
        self.completion_tokens.0.or(self.output_tokens.0)
    }

    fn input(&self) -> Option<u64> {
        self.prompt_tokens.0.or(self.input_tokens.0)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
}

/// Cohere's `meta`, which its rerank has instead of `usage`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "or_default")]
    billed_units: Report,
    #[serde(deserialize_with = "or_default")]
    tokens: Report,
}

impl Meta {
    /// The report in it: the engine's tokens, else what is billed.
    pub(super) fn report(self) -> Report {
        if self.tokens.input().is_some() {
            self.tokens
        } else {
            self.billed_units
        }
    }
}

/// Null is the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(source: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// The most tokens that a server is believed to have read or written for one request: a hundred times the longest context
/// there is. More is a fault of the server's, which must not reach sums that others share.
const TOKENS_MAX: u64 = 1_000_000_000;

/// A whole number of tokens, at most [`TOKENS_MAX`]; anything else is `None`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Count(pub(super) Option<u64>);

/// A number of seconds, whole or not, as a number or (some servers) a string; anything else is `None`.
#[derive(Debug, Default, Clone, Copy)]
struct Seconds(Option<Duration>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Lenient).map(|scalar| match scalar {
            Scalar::Whole(count) => Self(Some(count.min(TOKENS_MAX))),
            Scalar::Broken(_) | Scalar::Other => Self(None),
        })
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Lenient).map(|scalar| match scalar {
            Scalar::Whole(seconds) => Self(Some(Duration::from_secs(seconds))),
            Scalar::Broken(seconds) => Self(Duration::try_from_secs_f64(seconds).ok()),
            Scalar::Other => Self(None),
        })
    }
}

enum Scalar {
    Whole(u64),
    Broken(f64),
    Other,
}

/// Takes any value without complaint.
struct Lenient;

impl<'de> Visitor<'de> for Lenient {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Broken(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(text.parse().map_or(Scalar::Other, Scalar::Broken))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
