//! What a client asks for, in any of the dialects: only the fields that decide how long an answer takes.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The usual rule of thumb.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// A request body. Fields of other dialects are simply absent; unknown fields are ignored, as engines do.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Ask {
    pub(super) model: Option<String>,
    pub(super) stream: Option<bool>,
    n: Option<u64>,
    pub(super) stream_options: Option<StreamOptions>,
    /// The engine's own scheduling field; noted, not obeyed.
    pub(super) priority: Option<i64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    pub(super) encoding_format: Option<String>,
    #[serde(default)]
    messages: Text,
    #[serde(default)]
    system: Text,
    #[serde(default)]
    instructions: Text,
    #[serde(default)]
    prompt: Text,
    #[serde(default)]
    pub(super) input: Text,
    #[serde(default)]
    query: Text,
    #[serde(default)]
    pub(super) documents: Text,
    /// The exact number of tokens to answer with, beyond the server's own default.
    sim_output_tokens: Option<u64>,
    /// The pace of this request, where it is not to be the server's.
    pub(super) sim_ttft_ms: Option<f64>,
    pub(super) sim_ms_per_token: Option<f64>,
    pub(super) sim_ms_per_running: Option<f64>,
    /// How much of the input is reported as read from the prefix cache.
    pub(super) sim_cached_tokens: Option<u64>,
    /// What goes wrong; see `fault`.
    pub(super) sim_fault: Option<String>,
}

/// OpenAI's, and vLLM's `continuous_usage_stats`.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) continuous_usage_stats: Option<bool>,
}

impl Ask {
    /// By the text's length; at least one.
    pub(super) fn prompt_tokens(&self) -> u64 {
        let texts = [
            &self.messages,
            &self.system,
            &self.instructions,
            &self.prompt,
            &self.input,
            &self.query,
            &self.documents,
        ];
        texts.iter().map(|text| text.bytes).sum::<u64>().div_ceil(BYTES_PER_TOKEN).max(1)
    }

    /// `n` answers to each prompt.
    pub(super) fn choices(&self) -> u64 {
        self.n.unwrap_or(1).max(1).saturating_mul(self.prompt.items.max(1))
    }

    /// How many tokens each choice gets: what the request asks the simulation for, else the server's `default`; never more
    /// than `max_tokens` and its synonyms allow.
    pub(super) fn output_tokens(&self, default: u64) -> u64 {
        self.sim_output_tokens.unwrap_or(default).min(self.limit().unwrap_or(u64::MAX))
    }

    /// Whether the limit, not the end of the text, ended the answer.
    pub(super) fn cut_short(&self, tokens: u64) -> bool {
        self.limit() == Some(tokens)
    }

    fn limit(&self) -> Option<u64> {
        [self.max_tokens, self.max_completion_tokens, self.max_output_tokens]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The size of a text that is nowhere kept: bytes of its strings (a token id counts four), and how many texts it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    bytes: u64,
    /// One for a string or a list of token ids, else the length of the list.
    pub(super) items: u64,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Measure)
    }
}

/// The parts of a message that hold text; all else is form or pictures.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Content,
    Text,
    Arguments,
    ToolCalls,
    Function,
    #[serde(other)]
    Other,
}

struct Measure;

impl<'de> Visitor<'de> for Measure {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, token ids, or a list of messages")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text {
            bytes: text.len() as u64,
            items: 1,
        })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text {
            bytes: BYTES_PER_TOKEN,
            items: 0,
        })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut all = Text::default();
        while let Some(Text { bytes, items }) = list.next_element()? {
            all.bytes += bytes;
            all.items += items.min(1);
        }
        all.items = all.items.max(1);
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut all = Text { bytes: 0, items: 1 };
        while let Some(part) = map.next_key()? {
            match part {
                Part::Content | Part::Text | Part::Arguments | Part::ToolCalls | Part::Function => {
                    all.bytes += map.next_value::<Text>()?.bytes;
                }
                Part::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Ask {
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn input_is_measured_in_every_spelling() {
        for (body, tokens) in [
            (r#"{"messages":[{"role":"user","content":"12345678"}]}"#, 2),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"1234"},{"type":"image_url","image_url":{"url":"data:xxxxxxxxxxxx"}}]}]}"#,
                1,
            ),
            (r#"{"system":"1234","messages":[{"role":"user","content":"12345"}]}"#, 3),
            (r#"{"prompt":[1,2,3]}"#, 3),
            (r#"{"input":["1234","1234"]}"#, 2),
            ("{}", 1),
        ] {
            assert_eq!(ask(body).prompt_tokens(), tokens, "{body}");
        }
    }

    #[test]
    fn embeddings_count_their_inputs() {
        for (body, items) in [
            (r#"{"input":"a"}"#, 1),
            (r#"{"input":["a","b","c"]}"#, 3),
            (r#"{"input":[1,2]}"#, 1),
            (r#"{"input":[[1,2],[3]]}"#, 2),
        ] {
            assert_eq!(ask(body).input.items, items, "{body}");
        }
    }

    #[test]
    fn every_prompt_gets_n_choices() {
        for (body, choices) in [
            ("{}", 1),
            (r#"{"n":3,"messages":[{},{}]}"#, 3),
            (r#"{"prompt":["a","b"],"n":2}"#, 4),
            (r#"{"prompt":[1,2]}"#, 1),
        ] {
            assert_eq!(ask(body).choices(), choices, "{body}");
        }
    }

    #[test]
    fn the_least_limit_bounds_the_output() {
        let asked = ask(r#"{"max_tokens":50,"max_completion_tokens":20,"sim_output_tokens":30}"#);
        assert_eq!(asked.output_tokens(100), 20);
        assert!(asked.cut_short(20));
        assert_eq!(ask(r#"{"sim_output_tokens":30}"#).output_tokens(100), 30);
        assert_eq!(ask("{}").output_tokens(100), 100);
        assert_eq!(ask(r#"{"max_tokens":200}"#).output_tokens(100), 100);
    }
}
