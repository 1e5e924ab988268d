//! Whether an answer is whole: nothing that was cut, broken off or refused is kept.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Whether a body is one closed JSON value that tells of no error and of no work still to be done.
#[must_use]
pub fn json_is_whole(body: &[u8]) -> bool {
    match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice::<Body<'_>>(body).is_ok_and(|body| body.is_done()),
        Some(b'[') => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
        Some(_) | None => false,
    }
}

/// Whether an event stream came to its own end: its last event is one that says so (`[DONE]` at OpenAI, `message_stop` at
/// Anthropic, `response.completed` of the Responses API), and is closed by a blank line. Comments after it do no harm.
///
/// That no event before it told of an error is for the reader of the stream to know.
#[must_use]
pub fn events_are_whole(body: &[u8]) -> bool {
    let mut lines = body
        .rsplit(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // What stands after the last line end: nothing, or the stream was cut.
    if lines.next() != Some(b"") {
        return false;
    }
    let mut lines = lines.peekable();
    let mut closed = false;
    while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(b":")) {
        closed |= line.is_empty();
    }
    closed && lines.take_while(|line| !line.is_empty()).any(ends)
}

/// Whether a line is one that only a last event has.
fn ends(line: &[u8]) -> bool {
    if let Some(name) = line.strip_prefix(b"event:") {
        return is_last(name.trim_ascii());
    }
    let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
        return false;
    };
    data == b"[DONE]"
        || data.starts_with(b"{") && serde_json::from_slice::<Event<'_>>(data).is_ok_and(|event| is_last(event.kind.as_bytes()))
}

fn is_last(kind: &[u8]) -> bool {
    matches!(kind, b"message_stop" | b"response.completed")
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// What a body may say against itself.
#[derive(Deserialize)]
struct Body<'a> {
    /// Some servers put an error into a 200. The Responses API has null here.
    #[serde(default)]
    error: Option<IgnoredAny>,
    /// The Responses API's, whose background answers begin as `queued`.
    #[serde(borrow, default)]
    status: Option<&'a serde_json::value::RawValue>,
}

impl Body<'_> {
    fn is_done(&self) -> bool {
        let status = self.status.map_or("null", |status| status.get());
        self.error.is_none() && !matches!(status, "\"failed\"" | "\"cancelled\"" | "\"queued\"" | "\"in_progress\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_whole_when_closed_and_content() {
        for whole in [
            r#"{"choices":[]}"#,
            r#" {"error":null,"status":"completed"} "#,
            r#"[{"index":0}]"#,
            r#"{"status":7,"a":{"error":1}}"#,
        ] {
            assert!(json_is_whole(whole.as_bytes()), "{whole}");
        }
        for broken in [
            "",
            "   ",
            r#"{"choices":["#,
            r#"{"a":1}{"a":2}"#,
            r#"{"error":{"message":"x"}}"#,
            r#"{"status":"in_progress"}"#,
            r#"{"status":"failed","error":null}"#,
            "[1",
            "\"text\"",
            "<html>",
        ] {
            assert!(!json_is_whole(broken.as_bytes()), "{broken}");
        }
    }

    #[test]
    fn a_stream_is_whole_by_its_last_event() {
        for whole in [
            "data: {\"a\":1}\n\ndata: [DONE]\n\n",
            "data:[DONE]\r\n\r\n",
            "data: [DONE]\n\n: bye\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            "data: {\"type\":\"message_stop\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n",
        ] {
            assert!(events_are_whole(whole.as_bytes()), "{whole}");
        }
        for cut in [
            "",
            "\n\n",
            "data: {\"a\":1}\n\n",
            "data: [DONE]",
            "data: [DONE]\n",
            "data: [DONE]\n\ndata: {\"a\":1}\n\n",
            "data: {\"text\":\"[DONE]\"}\n\n",
            "data: {\"text\":\"message_stop\"}\n\n",
            "event: response.incomplete\ndata: {\"type\":\"response.incomplete\"}\n\n",
        ] {
            assert!(!events_are_whole(cut.as_bytes()), "{cut}");
        }
    }

    #[test]
    fn no_proper_prefix_of_a_stream_is_whole() {
        let stream = b"data: {\"a\":\"x\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        for length in 0..stream.len() {
            assert!(!events_are_whole(&stream[..length]), "{length}");
        }
        assert!(events_are_whole(stream));
    }
}
