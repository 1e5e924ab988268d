//! Reads along while an answer goes by: counts what comes out, finds what was used.
//!
//! An ordinary event costs three searches at memory speed and no allocation; JSON is parsed only where `"usage"` or
//! `"error"` stands as a string of its own, which an answer's text cannot bring about, since in there the quotes are escaped.
//!
//! The tap reads plain text. Of an answer that an upstream compressed although it was asked not to, the caller feeds it a
//! decoded copy and throws away what comes back.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::output::{self, after_colon};
use super::scan::{self, Place, Scan};
use super::usage::{Count, Meta, Report};
use super::{Dialect, Route, Usage};
use crate::sse::{self, Events, Verdict};

/// The most of an event that is held, in bytes. Larger ones hold whole images or whole answers, and none of them is a report
/// that would have to be taken out.
const HOLD_MAX: usize = 64 * 1024;

/// The most choices whose continuous reports are told apart.
const CHOICES_MAX: usize = 256;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));

/// Follows one answer.
#[derive(Debug)]
pub struct Tap {
    form: Form,
    meter: Meter,
}

#[derive(Debug)]
enum Form {
    Events(Box<Events>),
    Json(Box<(Scan, Option<output::Body>)>),
    /// Sound, or an answer that costs nothing.
    Unread,
}

impl Tap {
    /// Follows the answer to a request on `route`: an event stream, or one body. `injected_usage` says that the usage event
    /// was asked for by the gateway alone ([`Parsed::injected_usage`](super::Parsed::injected_usage)) and is to be taken out.
    #[must_use]
    pub fn new(route: Route, event_stream: bool, injected_usage: bool) -> Self {
        let mut meter = Meter {
            route,
            dialect: route.dialect(),
            inside: inside(route),
            output: output::key(route),
            take_out: injected_usage,
            usage: None,
            by_choice: Vec::new(),
            reported: 0,
            since: 0,
            failed: false,
            large: None,
        };
        let form = if route == Route::CountTokens {
            meter.usage = Some(Usage::NOTHING);
            Form::Unread
        } else if event_stream {
            Form::Events(Box::new(Events::new(HOLD_MAX)))
        } else if route == Route::AudioSpeech {
            Form::Unread
        } else {
            Form::Json(Box::new((Scan::new(meter.inside), output::member(route).map(output::Body::new))))
        };
        Self { form, meter }
    }

    /// Takes the next piece of the answer and gives back what the client gets of it: of an event stream whole events, of
    /// anything else the piece itself. `end` says that none follows. Never holds back more than one event of at most 64 KiB.
    pub fn feed(&mut self, piece: Bytes, end: bool) -> Bytes {
        match &mut self.form {
            Form::Events(events) => events.feed(piece, end, &mut self.meter),
            Form::Json(form) => {
                let ((scan, text), meter) = (&mut **form, &mut self.meter);
                let is_whole = end && scan.is_new();
                if !(is_whole && scan::at_the_end(&piece, |report| meter.found(Place::Usage, report))) {
                    scan.feed(&piece, |place, report| meter.found(place, report));
                    if let Some(text) = text {
                        text.feed(&piece);
                        meter.counted(text.tokens());
                    }
                }
                piece
            }
            Form::Unread => piece,
        }
    }

    /// What must be sent before an event of the gateway's own, when the answer breaks off here: an end to the event that
    /// the client has part of, if it has. What is held of an unfinished event is dropped, as the client would drop it.
    #[must_use]
    pub fn cut(&self) -> &'static [u8] {
        match &self.form {
            Form::Events(events) if events.is_mid_event() => b"\n\n",
            Form::Events(_) | Form::Json(_) | Form::Unread => b"",
        }
    }

    /// Output tokens so far: as last reported, and by count since then; of a body that reports none, by its text.
    #[must_use]
    pub fn output_tokens_so_far(&self) -> u64 {
        self.meter.reported.saturating_add(self.meter.since)
    }

    /// What the answer used so far; `None` until the server reports something. Output that came after the last report is in
    /// it by count, so that a stream which breaks off is not billed by the placeholder it began with.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let mut usage = self.meter.usage?;
        if self.meter.since > 0 {
            usage.set_output(self.output_tokens_so_far());
        }
        Some(usage)
    }

    /// Whether [`usage`](Self::usage) is the server's word throughout, nothing counted or estimated.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.meter.since == 0
            && self
                .meter
                .usage
                .is_some_and(|usage| usage.total_input().is_some() || usage.audio().is_some())
    }

    /// Whether the stream itself told of an error after its good status.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.meter.failed
    }

    /// Whether less may come out than went in, so that an announced length would not hold.
    #[must_use]
    pub fn may_shorten(&self) -> bool {
        self.meter.take_out && matches!(self.form, Form::Events(_))
    }
}

/// The top-level member in which a route's events and bodies nest their usage.
const fn inside(route: Route) -> &'static [u8] {
    match route {
        Route::Messages => b"message",
        Route::Responses => b"response",
        _ => b"",
    }
}

/// Adds up what the pieces tell.
#[derive(Debug)]
struct Meter {
    route: Route,
    dialect: Dialect,
    inside: &'static [u8],
    output: Option<&'static Finder<'static>>,
    /// Whether the usage event is to be taken out.
    take_out: bool,
    usage: Option<Usage>,
    /// The latest report of each choice, where a server reports continuously: each counts its own choice only.
    by_choice: Vec<(u64, u64)>,
    /// Output tokens of the latest report.
    reported: u64,
    /// Output tokens counted since.
    since: u64,
    failed: bool,
    /// Reads an event too large to be held.
    large: Option<Box<Scan>>,
}

/// What is wanted of an event that has usage or an error in it.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<IgnoredAny>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: Count,
}

#[derive(Deserialize)]
struct Nested<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

impl sse::Reader for Meter {
    fn event(&mut self, event: &[u8]) -> Verdict {
        let mut output = self.output.map_or(0, |key| output::tokens(key, event));
        if output == 0
            && let Some(opening) = output::opening(self.route, event)
        {
            output = output::tokens(opening, event);
        }
        self.since += output;
        let told = USAGE
            .find(event)
            .is_some_and(|at| !is_null(event.get(at + 7..).unwrap_or_default()));
        if told || output == 0 && ERROR.find(event).is_some() {
            self.parse(event)
        } else {
            Verdict::Pass
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        let mut scan = self.large.take().unwrap_or_else(|| Box::new(Scan::new(self.inside)));
        scan.feed(piece, |place, report| self.found(place, report));
        self.large = Some(scan);
    }

    fn large_end(&mut self) {
        self.large = None;
    }
}

impl Meter {
    fn parse(&mut self, event: &[u8]) -> Verdict {
        let data = sse::data(event);
        let Ok(event) = serde_json::from_slice::<Event<'_>>(&data) else {
            return Verdict::Pass;
        };
        self.failed |= event.error.is_some() || event.kind.as_deref() == Some("response.failed");
        let nested = if self.inside == b"response" {
            event.response
        } else {
            event.message
        };
        let nested = nested
            .filter(|_| !self.inside.is_empty())
            .and_then(|nested| serde_json::from_str::<Nested<'_>>(nested.get()).ok());
        let raw = event.usage.or_else(|| nested?.usage);
        let Some(report) = raw.and_then(|raw| serde_json::from_str::<Report>(raw.get()).ok()) else {
            return Verdict::Pass;
        };
        match event.choices.as_deref() {
            Some([choice, ..]) => self.merge_choice(&report, choice.index.0.unwrap_or(0)),
            Some([]) | None => self.merge(&report),
        }
        let is_report_only = event.choices.is_some_and(|choices| choices.is_empty());
        if self.take_out && is_report_only {
            Verdict::TakeOut
        } else {
            Verdict::Pass
        }
    }

    /// Takes a report found in a body or a large event.
    fn found(&mut self, place: Place, raw: &[u8]) {
        let report = match place {
            Place::Usage => serde_json::from_slice(raw).ok(),
            Place::Meta => serde_json::from_slice::<Meta>(raw)
                .ok()
                .map(Meta::report)
                .filter(|_| self.usage.is_none()),
        };
        if let Some(report) = report {
            self.merge(&report);
        }
    }

    /// Output of a body so far, which counts where none is reported.
    fn counted(&mut self, output: u64) {
        if self.usage.and_then(|usage| usage.output()).is_none() {
            self.since = output;
        }
    }

    /// A report of the whole answer.
    fn merge(&mut self, report: &Report) {
        let usage = self.usage.get_or_insert_default();
        usage.merge(report, self.dialect);
        if report.output().is_some() {
            self.reported = usage.output().unwrap_or(0);
            self.since = 0;
        }
    }

    /// A report beside a choice: of that choice alone, or of the whole answer where there is but one.
    fn merge_choice(&mut self, report: &Report, index: u64) {
        self.merge(report);
        let (Some(output), Some(usage)) = (report.output(), &mut self.usage) else {
            return;
        };
        match self.by_choice.iter().position(|(choice, _)| *choice == index) {
            Some(at) => {
                if let Some((_, latest)) = self.by_choice.get_mut(at) {
                    *latest = output;
                }
            }
            None if self.by_choice.len() < CHOICES_MAX => self.by_choice.push((index, output)),
            None => {}
        }
        self.reported = self.by_choice.iter().map(|(_, latest)| latest).sum();
        usage.set_output(self.reported);
    }
}

/// Whether null follows a key.
fn is_null(after_key: &[u8]) -> bool {
    after_colon(after_key).is_some_and(|value| value.starts_with(b"null"))
}

#[cfg(test)]
mod tests;
