//! Records of the spool as bytes.
//!
//! A frame is a length and a CRC-32 (IEEE), four bytes each, little-endian, and so many bytes of payload: the record's
//! kind, then its fields in a fixed order. Integers are LEB128 varints, texts a varint length and UTF-8. There is no
//! version in a frame: segments carry one in their name's extension (`spool`), and a process reads only what its own or an
//! equal one wrote, since a spool is empty after a clean stop. What was added later has a kind of its own, so that segments
//! from before are read as ever; who does not know the kind takes such a record for damage.

use std::borrow::Cow;
use std::sync::Arc;

use super::ticket::{Delivered, Intent};
use super::{ATTEMPTS_MAX, Attempt, AttemptOutcome, CacheStatus, Charge, Outcome, Row, Saved, Timing, Tokens, UsageSource};
use crate::id::RequestId;
use crate::units::{PicoUsd, UnixMs};

/// Bytes of a frame before its payload.
pub(super) const HEADER: usize = 8;

/// The longest text that is kept; longer ones are cut.
const TEXT_MAX: usize = 2_048;

/// The same of an endpoint in a log of attempts: a host name of 253 characters and a port.
const LABEL_MAX: usize = 264;

/// No payload is longer: a length above it is damage.
pub(super) const PAYLOAD_MAX: usize = 16_384;

// Six texts, a log of attempts, and less than half a kilobyte of the rest.
const _: () = assert!(6 * (TEXT_MAX + 2) + ATTEMPTS_MAX * (LABEL_MAX + 16) + 512 < PAYLOAD_MAX);

/// A record to be written.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A request is about to be dispatched.
    Intent(&'a Intent),
    /// How far it is.
    Progress(RequestId, Delivered),
    /// What became of it.
    Settle(&'a Row),
    /// It was still open when its segment was deleted.
    Carried(&'a Intent, Delivered),
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Intent(Intent),
    Progress(RequestId, Delivered),
    Settle(Row),
    Carried(Intent, Delivered),
}

/// What eighteen groups of seven bits hold; larger numbers are cut.
const WIDE_MAX: u128 = (1 << 126) - 1;

const INTENT: u8 = 1;
const PROGRESS: u8 = 2;
const SETTLE: u8 = 3;
const CARRIED: u8 = 4;
/// A settled row with the log of its attempts; without one it is a [`SETTLE`].
const SETTLE_LOGGED: u8 = 5;

/// The record's frame.
pub(super) fn frame(record: &Record<'_>) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(256));
    out.0.extend_from_slice(&[0; HEADER]);
    match record {
        Record::Intent(intent) => {
            out.0.push(INTENT);
            out.intent(intent);
        }
        Record::Progress(id, delivered) => {
            out.0.push(PROGRESS);
            out.0.extend_from_slice(id.as_bytes());
            out.delivered(delivered);
        }
        Record::Settle(row) => {
            let logged = !row.attempt_log.is_empty();
            out.0.push(if logged { SETTLE_LOGGED } else { SETTLE });
            out.row(row);
            if logged {
                out.attempts(&row.attempt_log);
            }
        }
        Record::Carried(intent, delivered) => {
            out.0.push(CARRIED);
            out.intent(intent);
            out.delivered(delivered);
        }
    }
    let mut bytes = out.0;
    let payload = &bytes[HEADER..];
    let (length, sum) = (u32::try_from(payload.len()).unwrap_or(u32::MAX), crc32fast::hash(payload));
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..HEADER].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What stands at the beginning of `bytes`.
#[derive(Debug)]
pub(super) enum Found {
    /// A record, and how long its frame is.
    Record(Box<Read>, usize),
    /// The beginning of a frame, or nothing: more may come.
    Part,
    /// No frame.
    Damage,
}

/// Reads the first frame.
pub(super) fn read(bytes: &[u8]) -> Found {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Found::Part;
    };
    let [a, b, c, d, e, f, g, h] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length == 0 || length > PAYLOAD_MAX {
        return Found::Damage;
    }
    let Some(payload) = rest.get(..length) else {
        return Found::Part;
    };
    if crc32fast::hash(payload) != u32::from_le_bytes([e, f, g, h]) {
        return Found::Damage;
    }
    match decode(payload) {
        Some(record) => Found::Record(Box::new(record), HEADER + length),
        None => Found::Damage,
    }
}

fn decode(payload: &[u8]) -> Option<Read> {
    let (kind, fields) = payload.split_first()?;
    let mut fields = In(fields);
    let record = match *kind {
        INTENT => Read::Intent(fields.intent()?),
        PROGRESS => Read::Progress(RequestId::from_bytes(fields.id()?), fields.delivered()?),
        SETTLE => Read::Settle(fields.row()?),
        SETTLE_LOGGED => {
            let mut row = fields.row()?;
            row.attempt_log = fields.attempts()?;
            Read::Settle(row)
        }
        CARRIED => Read::Carried(fields.intent()?, fields.delivered()?),
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

struct Out(Vec<u8>);

impl Out {
    fn wide(&mut self, value: u128) {
        let mut value = value.min(WIDE_MAX);
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn number(&mut self, value: u64) {
        self.wide(u128::from(value));
    }

    fn text(&mut self, text: &str) {
        self.short_text(text, TEXT_MAX);
    }

    fn short_text(&mut self, text: &str, max: usize) {
        let text = &text[..text.floor_char_boundary(max)];
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// `None` is told from an empty text.
    fn text_or_none(&mut self, text: Option<&str>) {
        self.0.push(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn delivered(&mut self, delivered: &Delivered) {
        self.number(delivered.tokens);
        self.wide(delivered.cost.0);
    }

    fn intent(&mut self, intent: &Intent) {
        self.0.extend_from_slice(intent.request_id.as_bytes());
        self.0.extend_from_slice(&intent.at.0.to_le_bytes());
        self.0.extend_from_slice(intent.tenant.as_bytes());
        self.0.extend_from_slice(intent.key.as_bytes());
        self.text(&intent.model);
        self.text_or_none(intent.client_request_id.as_deref());
        self.text_or_none(intent.session_id.as_deref());
        self.text(&intent.endpoint);
        self.text(&intent.route);
        self.0.extend_from_slice(&[intent.cache as u8, u8::from(intent.stream)]);
        self.number(intent.input_tokens);
        self.wide(intent.input_cost.0);
    }

    fn row(&mut self, row: &Row) {
        self.0.extend_from_slice(row.request_id.as_bytes());
        self.0.extend_from_slice(&row.at.0.to_le_bytes());
        self.0.extend_from_slice(row.tenant.as_bytes());
        self.0.extend_from_slice(row.key.as_bytes());
        self.text(&row.model);
        self.text_or_none(row.client_request_id.as_deref());
        self.text_or_none(row.session_id.as_deref());
        self.text(&row.endpoint);
        self.text(&row.route);
        self.text_or_none(row.error_code.as_deref());
        let flags = [row.outcome as u8, row.usage_source as u8, row.cache as u8, u8::from(row.stream)];
        self.0.extend_from_slice(&flags);
        self.number(u64::from(row.status));
        self.number(u64::from(row.attempts));
        let (tokens, timing) = (&row.tokens, &row.timing);
        for count in [tokens.input, tokens.cached_input, tokens.output, tokens.reasoning, row.saved.tokens] {
            self.number(count);
        }
        for money in [row.charge.input, row.charge.output, row.charge.request, row.saved.cost] {
            self.wide(money.0);
        }
        self.number(timing.queue_ms);
        self.0.push(u8::from(timing.ttft_ms.is_some()));
        self.number(timing.ttft_ms.unwrap_or(0));
        self.number(timing.total_ms);
    }

    fn attempts(&mut self, log: &[Attempt]) {
        let log = &log[..log.len().min(ATTEMPTS_MAX)];
        self.number(log.len() as u64);
        for attempt in log {
            self.short_text(&attempt.endpoint, LABEL_MAX);
            self.0.push(attempt.outcome as u8);
            // No status is 0.
            for number in [u32::from(attempt.status.unwrap_or(0)), attempt.start_ms, attempt.duration_ms] {
                self.number(u64::from(number));
            }
        }
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn id(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    fn at(&mut self) -> Option<UnixMs> {
        Some(UnixMs(i64::from_le_bytes(self.array()?)))
    }

    fn wide(&mut self) -> Option<u128> {
        let mut value = 0u128;
        for shift in (0..126).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<u64> {
        u64::try_from(self.wide()?).ok()
    }

    fn money(&mut self) -> Option<PicoUsd> {
        self.wide().map(PicoUsd)
    }

    fn text(&mut self) -> Option<&str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn text_or_none(&mut self) -> Option<Option<Box<str>>> {
        match self.byte()? {
            0 => Some(None),
            _ => Some(Some(Box::from(self.text()?))),
        }
    }

    /// The value with that number.
    fn word<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(usize::from(self.byte()?)).copied()
    }

    fn delivered(&mut self) -> Option<Delivered> {
        Some(Delivered {
            tokens: self.number()?,
            cost: self.money()?,
        })
    }

    fn intent(&mut self) -> Option<Intent> {
        Some(Intent {
            request_id: RequestId::from_bytes(self.id()?),
            at: self.at()?,
            tenant: crate::id::TenantId::from_bytes(self.id()?),
            key: crate::id::KeyId::from_bytes(self.id()?),
            model: Arc::from(self.text()?),
            client_request_id: self.text_or_none()?,
            session_id: self.text_or_none()?,
            endpoint: Arc::from(self.text()?),
            route: Cow::Owned(self.text()?.to_owned()),
            cache: self.word(CacheStatus::ALL)?,
            stream: self.byte()? != 0,
            input_tokens: self.number()?,
            input_cost: self.money()?,
        })
    }

    fn row(&mut self) -> Option<Row> {
        let mut row = Row {
            request_id: RequestId::from_bytes(self.id()?),
            at: self.at()?,
            tenant: crate::id::TenantId::from_bytes(self.id()?),
            key: crate::id::KeyId::from_bytes(self.id()?),
            model: Arc::from(self.text()?),
            client_request_id: self.text_or_none()?,
            session_id: self.text_or_none()?,
            endpoint: Arc::from(self.text()?),
            route: Cow::Owned(self.text()?.to_owned()),
            error_code: self.text_or_none()?.map(|code| Cow::Owned(String::from(code))),
            outcome: self.word(Outcome::ALL)?,
            usage_source: self.word(UsageSource::ALL)?,
            cache: self.word(CacheStatus::ALL)?,
            stream: self.byte()? != 0,
            status: u16::try_from(self.number()?).ok()?,
            attempts: u32::try_from(self.number()?).ok()?,
            attempt_log: Box::default(),
            tokens: Tokens {
                input: self.number()?,
                cached_input: self.number()?,
                output: self.number()?,
                reasoning: self.number()?,
            },
            saved: Saved {
                tokens: self.number()?,
                cost: PicoUsd(0),
            },
            charge: Charge {
                input: self.money()?,
                output: self.money()?,
                request: self.money()?,
            },
            timing: Timing::default(),
        };
        row.saved.cost = self.money()?;
        row.timing.queue_ms = self.number()?;
        let has_ttft = self.byte()? != 0;
        let ttft = self.number()?;
        row.timing.ttft_ms = has_ttft.then_some(ttft);
        row.timing.total_ms = self.number()?;
        Some(row)
    }

    fn attempts(&mut self) -> Option<Box<[Attempt]>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= ATTEMPTS_MAX)?;
        (0..count)
            .map(|_| {
                Some(Attempt {
                    endpoint: Arc::from(self.text()?),
                    outcome: self.word(AttemptOutcome::ALL)?,
                    status: Some(u16::try_from(self.number()?).ok()?).filter(|status| *status != 0),
                    start_ms: u32::try_from(self.number()?).ok()?,
                    duration_ms: u32::try_from(self.number()?).ok()?,
                })
            })
            .collect()
    }
}
