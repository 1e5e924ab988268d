//! A collector, and the spans that it was sent: read by the field numbers of OpenTelemetry's schema, apart from the code that
//! writes them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::mcp_server::{McpServer, Seen, Step, answer};

/// A span as it came.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) state: String,
    pub(super) name: String,
    pub(super) kind: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) attributes: BTreeMap<String, Value>,
    pub(super) failed: bool,
}

pub(super) const SERVER: u64 = 2;
pub(super) const CLIENT: u64 = 3;

/// A collector that takes what it is sent.
pub(super) struct Collector {
    pub(super) server: McpServer,
}

impl Collector {
    pub(super) async fn start() -> Self {
        Self::that(|_| answer(200, &[], "")).await
    }

    pub(super) async fn that(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self {
            server: McpServer::start(script).await,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    /// All spans so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.server.seen().iter().flat_map(|seen| read(&seen.body)).collect()
    }

    /// The request's own span that is called `name`, once it has come, and the spans below it, in order of their begin.
    pub(super) async fn request(&self, name: &str) -> (Span, Vec<Span>) {
        self.find(name, |own| own.name == name).await
    }

    /// The same of the one that `is` says it is.
    pub(super) async fn find(&self, what: &str, is: impl Fn(&Span) -> bool) -> (Span, Vec<Span>) {
        let mut found = None;
        eventually(what, Duration::from_secs(30), || {
            let all = self.spans();
            let own: Vec<Span> = all.iter().filter(|span| span.kind == SERVER && is(span)).cloned().collect();
            assert!(own.len() < 2, "{what}: {own:?}");
            found = own.into_iter().next().map(|own| {
                let mut below: Vec<Span> = all.into_iter().filter(|span| span.parent == own.id).collect();
                below.sort_by_key(|span| span.from);
                (own, below)
            });
            let ready = found.is_some();
            async move { ready }
        })
        .await;
        found.unwrap()
    }

    /// What the process says of itself.
    pub(super) fn resource(&self) -> BTreeMap<String, Value> {
        let body = self.server.seen().into_iter().next().unwrap().body;
        let spans = fields(&body).into_iter().next().unwrap().1;
        let resource = of(&spans.bytes(), 1).remove(0);
        of(&resource.bytes(), 1).iter().map(|pair| attribute(&pair.bytes())).collect()
    }
}

/// A field's value as it is on the wire.
#[derive(Debug, Clone)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("no number"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Number(_) => panic!("no bytes"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The fields of a message.
fn fields(mut rest: &[u8]) -> Vec<(u64, Field)> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at(count);
            rest = after;
            taken.to_vec()
        };
        let field = match key & 7 {
            1 => Field::Number(u64::from_le_bytes(take(8).try_into().unwrap())),
            5 => Field::Number(u32::from_le_bytes(take(4).try_into().unwrap()).into()),
            0 => Field::Number(varint(&mut rest)),
            2 => {
                let count = usize::try_from(varint(&mut rest)).unwrap();
                let (taken, after) = rest.split_at(count);
                rest = after;
                Field::Bytes(taken.to_vec())
            }
            other => panic!("layout {other}"),
        };
        all.push((key >> 3, field));
    }
    all
}

/// The values of one field.
fn of(message: &[u8], number: u64) -> Vec<Field> {
    let all = fields(message).into_iter();
    all.filter(|(found, _)| *found == number).map(|(_, field)| field).collect()
}

fn read(body: &[u8]) -> Vec<Span> {
    let resources = of(body, 1);
    let scopes = resources.iter().flat_map(|resource| of(&resource.bytes(), 2));
    let spans = scopes.flat_map(|scope| of(&scope.bytes(), 2));
    spans.map(|span| span_of(&span.bytes())).collect()
}

fn span_of(message: &[u8]) -> Span {
    let one = |number| of(message, number).into_iter().next();
    Span {
        trace: one(1).unwrap().hex(),
        id: one(2).unwrap().hex(),
        state: one(3).map(|state| state.text()).unwrap_or_default(),
        parent: one(4).map(|parent| parent.hex()).unwrap_or_default(),
        name: one(5).unwrap().text(),
        kind: one(6).unwrap().number(),
        from: one(7).unwrap().number(),
        to: one(8).unwrap().number(),
        attributes: of(message, 9).iter().map(|pair| attribute(&pair.bytes())).collect(),
        failed: one(15).is_some_and(|status| of(&status.bytes(), 3)[0].number() == 2),
    }
}

fn attribute(pair: &[u8]) -> (String, Value) {
    let name = of(pair, 1)[0].text();
    let (kind, value) = fields(&of(pair, 2)[0].bytes()).remove(0);
    let value = match kind {
        1 => json!(value.text()),
        2 => json!(value.number() == 1),
        3 => json!(value.number()),
        4 => json!(f64::from_bits(value.number())),
        other => panic!("value {other}"),
    };
    (name, value)
}
