//! The words of an answer in each protocol: what comes before, with and after the tokens of a stream, and the whole.

use std::fmt::Write;

use super::fault::UsageFault;

/// Plausible text, a token each: ASCII, about five bytes, nothing JSON would have to escape.
const TOKENS: [&str; 16] = [
    " the", " fair", " share", " of", " every", " tenant", " is", " kept", " while", " one", " flood", " waits", " and", " a", " light",
    " user",
];

/// The text of the `index`-th token.
pub(super) fn token(index: u64) -> &'static str {
    TOKENS[usize::try_from(index % TOKENS.len() as u64).unwrap_or(0)]
}

/// Text of so many tokens.
pub(super) fn text(tokens: u64) -> String {
    (0..tokens).map(token).collect()
}

/// The generating protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Completions,
    Responses,
    Messages,
}

/// What is said about an answer beside its text.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) dialect: Dialect,
    pub(super) id: String,
    /// As a JSON string, quotes included.
    pub(super) model: String,
    /// Unix seconds.
    pub(super) created: u64,
    pub(super) choices: u64,
    /// Output tokens per choice.
    pub(super) tokens: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: Option<u64>,
    /// Whether `max_tokens` ended it.
    pub(super) by_length: bool,
    /// Whether a stream on chat or completions ends with usage.
    pub(super) include_usage: bool,
    /// Whether each chunk tells the usage so far.
    pub(super) continuous_usage: bool,
    pub(super) fault: UsageFault,
}

/// One token's event is `head`, the number if `number` says so, `middle`, the text, `tail`.
#[derive(Debug)]
pub(super) struct Mould {
    pub(super) head: String,
    pub(super) number: Number,
    pub(super) middle: &'static str,
    pub(super) tail: String,
}

/// The number inside a token's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// None.
    Absent,
    /// Which choice the token belongs to.
    Choice,
    /// The event's place in the stream, which begins here.
    Sequence(u64),
}

impl Answer {
    fn finish_reason(&self) -> &'static str {
        match (self.dialect, self.by_length) {
            (Dialect::Messages, true) => "max_tokens",
            (Dialect::Messages, false) => "end_turn",
            (_, true) => "length",
            (_, false) => "stop",
        }
    }

    /// OpenAI's usage object for so many output tokens; cached tokens are part of the input.
    pub(super) fn usage(&self, output: u64) -> String {
        let (input, cached) = (self.prompt_tokens, self.cached_tokens);
        let total = input + output;
        if self.dialect == Dialect::Responses {
            let cached = cached.unwrap_or(0);
            return format!(
                r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
            );
        }
        let details = cached.map_or_else(|| "null".to_owned(), |cached| format!(r#"{{"cached_tokens":{cached}}}"#));
        format!(r#"{{"prompt_tokens":{input},"total_tokens":{total},"completion_tokens":{output},"prompt_tokens_details":{details}}}"#)
    }

    /// Anthropic's usage object: cached tokens are *not* part of the input.
    fn anthropic_usage(&self, output: u64) -> String {
        let cached = self.cached_tokens.unwrap_or(0);
        let input = self.prompt_tokens.saturating_sub(cached);
        format!(r#"{{"input_tokens":{input},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cached},"output_tokens":{output}}}"#)
    }

    /// An answer that is no stream.
    pub(super) fn whole(&self) -> String {
        let Self { id, model, created, .. } = self;
        let finish = self.finish_reason();
        let text = text(self.tokens);
        let usage = match self.fault {
            UsageFault::Missing => String::new(),
            UsageFault::None | UsageFault::Twice => format!(r#","usage":{}"#, self.usage(self.tokens * self.choices)),
        };
        let choices = |one: &dyn Fn(u64) -> String| (0..self.choices).map(one).collect::<Vec<_>>().join(",");
        match self.dialect {
            Dialect::Chat => {
                let choices = choices(&|index| {
                    format!(
                        r#"{{"index":{index},"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"{finish}"}}"#
                    )
                });
                format!(r#"{{"id":"{id}","object":"chat.completion","created":{created},"model":{model},"choices":[{choices}]{usage}}}"#)
            }
            Dialect::Completions => {
                let choices =
                    choices(&|index| format!(r#"{{"index":{index},"text":"{text}","logprobs":null,"finish_reason":"{finish}"}}"#));
                format!(r#"{{"id":"{id}","object":"text_completion","created":{created},"model":{model},"choices":[{choices}]{usage}}}"#)
            }
            Dialect::Responses => self.response(Some(&text)),
            Dialect::Messages => {
                let usage = match self.fault {
                    UsageFault::Missing => String::new(),
                    UsageFault::None | UsageFault::Twice => format!(r#","usage":{}"#, self.anthropic_usage(self.tokens)),
                };
                format!(
                    r#"{{"id":"{id}","type":"message","role":"assistant","model":{model},"content":[{{"type":"text","text":"{text}"}}],"stop_reason":"{finish}","stop_sequence":null{usage}}}"#
                )
            }
        }
    }

    /// The object of the Responses API: done when it has a text, else just begun.
    fn response(&self, text: Option<&str>) -> String {
        let Self { id, model, created, .. } = self;
        let (status, details) = match (text, self.by_length) {
            (None, _) => ("in_progress", "null"),
            (Some(_), true) => ("incomplete", r#"{"reason":"max_output_tokens"}"#),
            (Some(_), false) => ("completed", "null"),
        };
        let usage = match (text, self.fault) {
            (None, _) | (_, UsageFault::Missing) => "null".to_owned(),
            (Some(_), UsageFault::None | UsageFault::Twice) => self.usage(self.tokens),
        };
        let output = text.map_or_else(String::new, |text| self.output_item(text, status));
        format!(
            r#"{{"id":"{id}","object":"response","created_at":{created},"status":"{status}","error":null,"incomplete_details":{details},"instructions":null,"metadata":{{}},"model":{model},"output":[{output}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"usage":{usage}}}"#
        )
    }

    fn output_item(&self, text: &str, status: &str) -> String {
        let part = output_part(text);
        format!(
            r#"{{"id":"msg_{}","type":"message","status":"{status}","role":"assistant","content":[{part}]}}"#,
            self.id
        )
    }

    /// The start of each chunk on chat and completions, up to the choices.
    fn chunk(&self) -> String {
        let Self { id, model, created, .. } = self;
        let object = if self.dialect == Dialect::Chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        format!(r#"data: {{"id":"{id}","object":"{object}","created":{created},"model":{model},"choices":["#)
    }

    /// What follows the choices of an ordinary chunk: OpenAI says `"usage":null` on all but the last when usage was asked for.
    fn unsaid(&self) -> &'static str {
        if self.include_usage && self.fault != UsageFault::Missing && !self.continuous_usage {
            r#","usage":null"#
        } else {
            ""
        }
    }

    /// Before the first token.
    pub(super) fn prologue(&self) -> String {
        match self.dialect {
            Dialect::Completions => String::new(),
            Dialect::Chat => {
                let (chunk, unsaid) = (self.chunk(), self.unsaid());
                let mut all = String::new();
                for index in 0..self.choices {
                    // Writing into a String cannot fail.
                    let _ = write!(
                        all,
                        "{chunk}{{\"index\":{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}]{unsaid}}}\n\n"
                    );
                }
                all
            }
            Dialect::Responses => {
                let response = self.response(None);
                let item = format!(
                    r#"{{"id":"msg_{}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
                    self.id
                );
                let part = output_part("");
                [
                    event("response.created", &format!(r#""sequence_number":0,"response":{response}"#)),
                    event("response.in_progress", &format!(r#""sequence_number":1,"response":{response}"#)),
                    event(
                        "response.output_item.added",
                        &format!(r#""sequence_number":2,"output_index":0,"item":{item}"#),
                    ),
                    event(
                        "response.content_part.added",
                        &format!(
                            r#""sequence_number":3,"item_id":"msg_{}","output_index":0,"content_index":0,"part":{part}"#,
                            self.id
                        ),
                    ),
                ]
                .concat()
            }
            Dialect::Messages => {
                let Self { id, model, .. } = self;
                let usage = match self.fault {
                    UsageFault::Missing => String::new(),
                    // The first event counts a token that the last event counts again: it replaces, it does not add.
                    UsageFault::None | UsageFault::Twice => format!(r#","usage":{}"#, self.anthropic_usage(1)),
                };
                let message = format!(
                    r#"{{"id":"{id}","type":"message","role":"assistant","model":{model},"content":[],"stop_reason":null,"stop_sequence":null{usage}}}"#
                );
                [
                    event("message_start", &format!(r#""message":{message}"#)),
                    event("content_block_start", r#""index":0,"content_block":{"type":"text","text":""}"#),
                    event("ping", ""),
                ]
                .concat()
            }
        }
    }

    /// The form of a token's event.
    pub(super) fn mould(&self) -> Mould {
        match self.dialect {
            Dialect::Chat => Mould {
                head: self.chunk() + r#"{"index":"#,
                number: Number::Choice,
                middle: r#","delta":{"content":""#,
                tail: format!(r#""}},"logprobs":null,"finish_reason":null}}]{}"#, self.unsaid()),
            },
            Dialect::Completions => Mould {
                head: self.chunk() + r#"{"index":"#,
                number: Number::Choice,
                middle: r#","text":""#,
                tail: format!(r#"","logprobs":null,"finish_reason":null}}]{}"#, self.unsaid()),
            },
            Dialect::Responses => Mould {
                head: format!(
                    "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"item_id\":\"msg_{}\",\"output_index\":0,\"content_index\":0,\"logprobs\":[],\"sequence_number\":",
                    self.id
                ),
                number: Number::Sequence(4),
                middle: r#","delta":""#,
                tail: "\"".to_owned(),
            },
            Dialect::Messages => Mould {
                head: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\""
                    .to_owned(),
                number: Number::Absent,
                middle: "",
                tail: "\"}".to_owned(),
            },
        }
    }

    /// After the last token.
    pub(super) fn epilogue(&self) -> String {
        match self.dialect {
            Dialect::Chat | Dialect::Completions => self.openai_epilogue(),
            Dialect::Responses => self.responses_epilogue(),
            Dialect::Messages => {
                let usage = match self.fault {
                    UsageFault::Missing => String::new(),
                    UsageFault::None | UsageFault::Twice => format!(r#","usage":{}"#, self.anthropic_usage(self.tokens)),
                };
                [
                    event("content_block_stop", r#""index":0"#),
                    event(
                        "message_delta",
                        &format!(
                            r#""delta":{{"stop_reason":"{}","stop_sequence":null}}{usage}"#,
                            self.finish_reason()
                        ),
                    ),
                    event("message_stop", ""),
                ]
                .concat()
            }
        }
    }

    fn openai_epilogue(&self) -> String {
        let (chunk, unsaid, finish) = (self.chunk(), self.unsaid(), self.finish_reason());
        let nothing = if self.dialect == Dialect::Chat {
            r#""delta":{}"#
        } else {
            r#""text":"""#
        };
        let mut all = String::new();
        for index in 0..self.choices {
            // Writing into a String cannot fail.
            let _ = write!(
                all,
                "{chunk}{{\"index\":{index},{nothing},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}]{unsaid}}}\n\n"
            );
        }
        let output = self.tokens * self.choices;
        if self.fault == UsageFault::Twice {
            let poor = Self {
                cached_tokens: None,
                model: String::new(),
                id: String::new(),
                ..*self
            };
            let _ = write!(all, "{chunk}],\"usage\":{}}}\n\n", poor.usage(output));
        }
        if self.fault == UsageFault::Twice || (self.include_usage && self.fault != UsageFault::Missing) {
            let _ = write!(all, "{chunk}],\"usage\":{}}}\n\n", self.usage(output));
        }
        all + "data: [DONE]\n\n"
    }

    fn responses_epilogue(&self) -> String {
        let text = text(self.tokens);
        let status = if self.by_length { "incomplete" } else { "completed" };
        let at = format!(r#""item_id":"msg_{}","output_index":0,"content_index":0"#, self.id);
        let number = 4 + self.tokens;
        let last = if self.by_length {
            "response.incomplete"
        } else {
            "response.completed"
        };
        [
            event(
                "response.output_text.done",
                &format!(r#""sequence_number":{number},{at},"logprobs":[],"text":"{text}""#),
            ),
            event(
                "response.content_part.done",
                &format!(r#""sequence_number":{},{at},"part":{}"#, number + 1, output_part(&text)),
            ),
            event(
                "response.output_item.done",
                &format!(
                    r#""sequence_number":{},"output_index":0,"item":{}"#,
                    number + 2,
                    self.output_item(&text, status)
                ),
            ),
            event(
                last,
                &format!(r#""sequence_number":{},"response":{}"#, number + 3, self.response(Some(&text))),
            ),
        ]
        .concat()
    }
}

fn output_part(text: &str) -> String {
    format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#)
}

/// A named event, whose data bears the name too.
fn event(name: &str, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{comma}{fields}}}\n\n")
}

#[cfg(test)]
mod tests;
