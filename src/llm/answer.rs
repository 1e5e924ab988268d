//! What the gateway says itself: errors in the client's dialect, and the list of models.

use bytes::Bytes;
use serde::Serialize;

use super::Dialect;

/// Who answers for the models in the list.
const OWNER: &str = "obleth";

/// An error before it takes the shape of a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// The status it is sent with; Anthropic's error type follows from it.
    pub status: u16,
    /// OpenAI's error type.
    pub kind: &'a str,
    /// The stable word for programs; OpenAI's dialect only.
    pub code: Option<&'a str>,
    /// The field at fault; OpenAI's dialect only.
    pub param: Option<&'a str>,
    /// The sentence for people.
    pub message: &'a str,
    /// The id under which the request is found again; Anthropic's dialect only, the other has it in a header.
    pub request_id: &'a str,
}

/// A model as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedModel<'a> {
    /// The name that clients send.
    pub id: &'a str,
    /// When it was registered, in Unix seconds.
    pub created: i64,
    /// Tokens of prompt and answer together.
    pub context_window: u32,
}

/// Writes an error as a body.
#[must_use]
pub fn error_body(dialect: Dialect, error: &ErrorBody<'_>) -> Bytes {
    json(&shape(dialect, error))
}

/// Writes an error as the last event of a stream whose status has been sent.
#[must_use]
pub fn error_event(dialect: Dialect, error: &ErrorBody<'_>) -> Bytes {
    let name: &[u8] = match dialect {
        Dialect::Openai => b"",
        // Anthropic's clients skip frames that have no name.
        Dialect::Anthropic => b"event: error\n",
    };
    // JSON escapes line ends, so the data is one line.
    [name, b"data: ", &json(&shape(dialect, error)), b"\n\n"].concat().into()
}

/// Writes the list of models.
#[must_use]
pub fn models_body<'a>(models: impl IntoIterator<Item = ListedModel<'a>>) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Entry<'a>>,
    }
    json(&List {
        object: "list",
        data: models.into_iter().map(Entry::from).collect(),
    })
}

/// Writes one model.
#[must_use]
pub fn model_body(model: &ListedModel<'_>) -> Bytes {
    json(&Entry::from(*model))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shape<'a> {
    Openai {
        error: OpenaiError<'a>,
    },
    Anthropic {
        r#type: &'static str,
        error: AnthropicError<'a>,
        request_id: &'a str,
    },
}

/// All four keys are always there: clients index into them.
#[derive(Serialize)]
struct OpenaiError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    /// vLLM's and SGLang's name for it, which clients look for.
    max_model_len: u32,
    context_window: u32,
}

impl<'a> From<ListedModel<'a>> for Entry<'a> {
    fn from(model: ListedModel<'a>) -> Self {
        Self {
            id: model.id,
            object: "model",
            created: model.created,
            owned_by: OWNER,
            max_model_len: model.context_window,
            context_window: model.context_window,
        }
    }
}

fn shape<'a>(dialect: Dialect, error: &ErrorBody<'a>) -> Shape<'a> {
    match dialect {
        Dialect::Openai => Shape::Openai {
            error: OpenaiError {
                message: error.message,
                r#type: error.kind,
                param: error.param,
                code: error.code,
            },
        },
        Dialect::Anthropic => Shape::Anthropic {
            r#type: "error",
            error: AnthropicError {
                r#type: anthropic_type(error.status),
                message: error.message,
            },
            request_id: error.request_id,
        },
    }
}

/// Anthropic's type of an error by its status. Statuses that Anthropic does not use take the type of their class.
const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// Text and numbers under fixed keys: there is nothing in them that cannot be written.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: ErrorBody<'_> = ErrorBody {
        status: 404,
        kind: "invalid_request_error",
        code: Some("model_not_found"),
        param: Some("model"),
        message: "The model \"x\ny\" does not exist.",
        request_id: "r-1",
    };

    #[test]
    fn openai_errors_have_all_four_keys() {
        let body = error_body(
            Dialect::Openai,
            &ErrorBody {
                param: None,
                code: None,
                ..ERROR
            },
        );
        assert_eq!(
            body,
            r#"{"error":{"message":"The model \"x\ny\" does not exist.","type":"invalid_request_error","param":null,"code":null}}"#
        );
        let event = error_event(Dialect::Openai, &ERROR);
        assert_eq!(
            event,
            "data: {\"error\":{\"message\":\"The model \\\"x\\ny\\\" does not exist.\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n"
        );
    }

    #[test]
    fn anthropic_errors_are_named_by_status() {
        let body = error_body(Dialect::Anthropic, &ERROR);
        assert_eq!(
            body,
            r#"{"type":"error","error":{"type":"not_found_error","message":"The model \"x\ny\" does not exist."},"request_id":"r-1"}"#
        );
        let named = [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (405, "invalid_request_error"),
            (413, "request_too_large"),
            (415, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
        ];
        for (status, name) in named {
            let event = error_event(Dialect::Anthropic, &ErrorBody { status, ..ERROR });
            let event = std::str::from_utf8(&event).unwrap();
            assert!(
                event.starts_with("event: error\ndata: {\"type\":\"error\"") && event.ends_with("}\n\n"),
                "{event}"
            );
            assert!(event.contains(&format!(r#""error":{{"type":"{name}""#)), "{status}: {event}");
        }
    }

    #[test]
    fn models_are_listed_as_openai_and_vllm_do() {
        let model = ListedModel {
            id: "llama",
            created: 1_700_000_000,
            context_window: 8192,
        };
        let one = r#"{"id":"llama","object":"model","created":1700000000,"owned_by":"obleth","max_model_len":8192,"context_window":8192}"#;
        assert_eq!(model_body(&model), one);
        assert_eq!(models_body([model]), format!(r#"{{"object":"list","data":[{one}]}}"#));
        assert_eq!(models_body([]), r#"{"object":"list","data":[]}"#);
    }
}
