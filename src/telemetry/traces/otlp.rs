//! OTLP's export request for traces in Protocol Buffers' encoding, field numbers as in `opentelemetry/proto/trace/v1/trace.proto`
//! and `collector/trace/v1/trace_service.proto`, version 1.

use super::span::{Finished, Kind, Span, Value};

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// How a field's value is laid out.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Layout {
    Varint = 0,
    Eight = 1,
    Counted = 2,
    Four = 5,
}

/// `ExportTraceServiceRequest`. `scope` is the name and version of what made the spans.
pub(super) fn request(resource: &[(String, String)], scope: (&str, &str), requests: &[Finished]) -> Vec<u8> {
    let mut out = Vec::new();
    // ResourceSpans
    nested(&mut out, 1, |out| {
        nested(out, 1, |out| {
            for (name, value) in resource {
                nested(out, 1, |out| {
                    bytes(out, 1, name.as_bytes());
                    nested(out, 2, |out| bytes(out, 1, value.as_bytes()));
                });
            }
        });
        // ScopeSpans
        nested(out, 2, |out| {
            nested(out, 1, |out| {
                bytes(out, 1, scope.0.as_bytes());
                bytes(out, 2, scope.1.as_bytes());
            });
            for finished in requests {
                for one in &finished.spans {
                    nested(out, 2, |out| span(out, finished, one));
                }
            }
        });
    });
    out
}

fn span(out: &mut Vec<u8>, finished: &Finished, span: &Span) {
    let context = &finished.context;
    bytes(out, 1, context.trace.bytes());
    bytes(out, 2, span.id.bytes());
    if !context.state.is_empty() {
        bytes(out, 3, context.state.as_bytes());
    }
    if let Some(parent) = &span.parent {
        bytes(out, 4, parent.bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    let kind = match span.kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    };
    whole(out, 6, kind);
    eight(out, 7, span.from);
    eight(out, 8, span.to);
    for (name, value) in &span.attributes {
        nested(out, 9, |out| {
            bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| any(out, value));
        });
    }
    if span.failed {
        nested(out, 15, |out| whole(out, 3, ERROR));
    }
    let is_remote = if span.parent.is_some() && span.parent == context.parent {
        IS_REMOTE
    } else {
        0
    };
    key(out, 16, Layout::Four);
    out.extend_from_slice(&(u32::from(context.flags()) | KNOWS_REMOTE | is_remote).to_le_bytes());
}

/// `AnyValue`
fn any(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => bytes(out, 1, text.as_bytes()),
        Value::Shared(text) => bytes(out, 1, text.as_bytes()),
        Value::Flag(flag) => whole(out, 2, u64::from(*flag)),
        // An int64: what is larger is no count of ours.
        Value::Whole(number) => whole(out, 3, (*number).min(i64::MAX.unsigned_abs())),
        Value::Number(number) => eight(out, 4, number.to_bits()),
    }
}

fn key(out: &mut Vec<u8>, field: u32, layout: Layout) {
    varint(out, u64::from(field << 3 | layout as u32));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn whole(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, Layout::Varint);
    varint(out, value);
}

fn eight(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, Layout::Eight);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, Layout::Counted);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message in a message: its length is known, and put before it, once it is written.
fn nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, Layout::Counted);
    let at = out.len();
    write(out);
    let mut length = Vec::with_capacity(5);
    varint(&mut length, (out.len() - at) as u64);
    out.splice(at..at, length);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::traces::{Context, SpanId, TraceId};

    /// What the official `opentelemetry-proto` package for Python (1.45.2) makes of the same spans.
    const OFFICIAL: &str = "\
         0ad9040a1a0a180a0c736572766963652e6e616d6512080a066f626c65746812ba040a0e0a0573636f70651205392e382e371293030a100102030405\
         060708090a0b0c0d0e0f10120802020202020202021a07613d312c623d32220801010101010101012a0a63686174206c6c616d6130023901002a36fe\
         9c97174102cac471fe9c97174a0c0a047465787412040a02c3bc4a110a0673686172656412070a0567726f75704a0c0a0577686f6c65120318ac024a\
         120a046d6f7374120a18ffffffffffffffff7f4a130a066e756d626572120921000000000000d03f4a090a03796573120210014ad4010a046c6f6e67\
         12cb010ac801787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
         787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
         787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
         78787878787878787878787878787878787878787878787878787a02180285010103000012530a100102030405060708090a0b0c0d0e0f1012080303\
         0303030303031a07613d312c623d32220802020202020202022a08757073747265616d30033901000000000000004102000000000000008501010100\
         00123d0a1009090909090909090909090909090909120804040404040404042a05717565756530013901000000000000004102000000000000008501\
         01010000";

    fn id(byte: u8) -> SpanId {
        SpanId::of([byte; 8]).unwrap()
    }

    fn plain(id: SpanId, parent: Option<SpanId>, name: &'static str, kind: Kind) -> Span {
        Span {
            id,
            parent,
            name: Cow::Borrowed(name),
            kind,
            from: 1,
            to: 2,
            attributes: Vec::new(),
            failed: false,
        }
    }

    #[test]
    fn spans_are_written_as_the_official_library_writes_them() {
        let trace = TraceId::of([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]).unwrap();
        let mut first = plain(id(2), Some(id(1)), "chat llama", Kind::Server);
        (first.from, first.to, first.failed) = (1_700_000_000_000_000_001, 1_700_000_001_000_000_002, true);
        first.text("text", "ü");
        first.shared("shared", &Arc::from("group"));
        first.whole("whole", 300);
        first.whole("most", u64::MAX);
        first.attributes.push(("number", Value::Number(0.25)));
        first.attributes.push(("yes", Value::Flag(true)));
        first.text("long", "x".repeat(200));
        let continued = Finished {
            context: Context {
                trace,
                parent: Some(id(1)),
                sampled: true,
                state: "a=1,b=2".to_owned(),
            },
            spans: vec![first, plain(id(3), Some(id(2)), "upstream", Kind::Client)],
        };
        let begun = Finished {
            context: Context {
                trace: TraceId::of([9; 16]).unwrap(),
                parent: None,
                sampled: true,
                state: String::new(),
            },
            spans: vec![plain(id(4), None, "queue", Kind::Internal)],
        };
        let resource = [("service.name".to_owned(), "obleth".to_owned())];
        let body = request(&resource, ("scope", "9.8.7"), &[continued, begun]);
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, OFFICIAL);
    }
}
