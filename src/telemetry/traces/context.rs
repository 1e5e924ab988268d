//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context-1/>): what a client says of the trace its request belongs
//! to, read strictly, and what upstreams are told of it. What is not well-formed is as good as absent: a new trace begins.

use std::fmt::{self, Write as _};
use std::str;

/// The only version there is; later ones are read as far as this one goes.
const VERSION: &str = "00";
/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const PARENT_LEN: usize = 55;
/// The one flag of level 1.
const SAMPLED: u8 = 1;
/// Members of a `tracestate` (§3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// The longest `tracestate` that is passed on: what everybody must be able to (§3.3.1.5).
const STATE_MAX: usize = 512;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $bytes:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq)]
            pub struct $name([u8; $bytes]);

            impl $name {
                /// A new one at random; never all zeros, which is none.
                #[must_use]
                pub fn mint() -> Self {
                    loop {
                        if let Some(id) = Self::of(rand::random()) {
                            return id;
                        }
                    }
                }

                /// The id of these bytes; all zeros are none.
                #[must_use]
                pub fn of(bytes: [u8; $bytes]) -> Option<Self> {
                    bytes.iter().any(|byte| *byte != 0).then_some(Self(bytes))
                }

                /// Its bytes.
                #[must_use]
                pub const fn bytes(&self) -> &[u8; $bytes] {
                    &self.0
                }

                /// Reads lowercase hexadecimal digits.
                fn read(digits: &[u8]) -> Option<Self> {
                    let mut bytes = [0; $bytes];
                    if digits.len() != 2 * bytes.len() {
                        return None;
                    }
                    for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                        *byte = hex(digits)?;
                    }
                    Self::of(bytes)
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(self, f)
                }
            }
        )+
    };
}

ids! {
    /// A trace's id.
    TraceId 16;
    /// A span's id.
    SpanId 8;
}

/// What a client says of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
    state: String,
}

impl Remote {
    /// Reads all values of `traceparent` and of `tracestate`. `None` unless there is exactly one well-formed parent; a state
    /// that is not well-formed, or longer than 512 characters, counts as none.
    #[must_use]
    pub fn read<'v>(mut parents: impl Iterator<Item = &'v [u8]>, states: impl Iterator<Item = &'v [u8]>) -> Option<Self> {
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let (trace, span, sampled) = read_parent(parent)?;
        let state = read_state(states).unwrap_or_default();
        Some(Self {
            trace,
            span,
            sampled,
            state,
        })
    }

    /// The same without its `tracestate`.
    #[must_use]
    pub fn without_state(self) -> Self {
        Self {
            state: String::new(),
            ..self
        }
    }

    /// What its vendors say to one another: a `tracestate`, or nothing.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// The trace that a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its id.
    pub trace: TraceId,
    /// The client's span; `None` where the trace begins with the request.
    pub parent: Option<SpanId>,
    /// Whether it is recorded.
    pub sampled: bool,
    /// What vendors say to one another, passed on as it came; empty if nothing.
    pub state: String,
}

impl Context {
    /// Goes on with the client's trace as the client has decided, or begins one, which `chooses` decides on by its id.
    #[must_use]
    pub fn of(remote: Option<Remote>, chooses: impl FnOnce(TraceId) -> bool) -> Self {
        match remote {
            Some(remote) => Self {
                trace: remote.trace,
                parent: Some(remote.span),
                sampled: remote.sampled,
                state: remote.state,
            },
            None => {
                let trace = TraceId::mint();
                Self {
                    trace,
                    parent: None,
                    sampled: chooses(trace),
                    state: String::new(),
                }
            }
        }
    }

    /// The `traceparent` for an upstream, whose caller is `span`.
    #[must_use]
    pub fn traceparent(&self, span: SpanId) -> String {
        let mut text = String::with_capacity(PARENT_LEN);
        // A String takes all.
        let _ = write!(text, "{VERSION}-{}-{span}-{:02x}", self.trace, self.flags());
        text
    }

    /// The flags as a byte.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        if self.sampled { SAMPLED } else { 0 }
    }
}

fn read_parent(value: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let value = value.trim_ascii();
    let version = hex(value.get(..2)?)?;
    let (known, later) = value.split_at_checked(PARENT_LEN)?;
    // Version 0 ends here; a later one may go on after a hyphen, and 255 is none.
    let ends = later.is_empty() || (version != 0 && later.first() == Some(&b'-'));
    let mut parts = known.split(|byte| *byte == b'-').skip(1);
    let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
    if version == 0xff || !ends || parts.next().is_some() || flags.len() != 2 {
        return None;
    }
    Some((TraceId::read(trace)?, SpanId::read(span)?, hex(flags)? & SAMPLED != 0))
}

/// A byte in two lowercase hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u8> {
    let lower = |digit: &u8| digit.is_ascii_digit() || matches!(digit, b'a'..=b'f');
    if digits.len() != 2 || !digits.iter().all(lower) {
        return None;
    }
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// All lists in one, without what is empty.
fn read_state<'v>(states: impl Iterator<Item = &'v [u8]>) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for state in states {
        for member in state.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            let member = str::from_utf8(member).ok()?;
            let (key, value) = member.split_once('=')?;
            let again = members
                .iter()
                .any(|other| other.split_once('=').is_some_and(|(other, _)| other == key));
            if again || !is_key(key) || !is_value(value) {
                return None;
            }
            members.push(member);
        }
    }
    let state = members.join(",");
    (members.len() <= MEMBERS_MAX && state.len() <= STATE_MAX).then_some(state)
}

/// `key`, or `tenant@system` (§3.3.1.3.1).
fn is_key(key: &str) -> bool {
    let fits = |text: &str, max: usize| {
        (1..=max).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/'))
    };
    let begins_with_letter = |text: &str| text.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        None => fits(key, 256) && begins_with_letter(key),
        Some((tenant, system)) => {
            let begins = tenant.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
            begins && fits(tenant, 241) && fits(system, 14) && begins_with_letter(system)
        }
    }
}

/// Printable, no comma, no equals sign (§3.3.1.3.2); spaces at its end were trimmed.
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(value: &str) -> Option<Remote> {
        Remote::read([value.as_bytes()].into_iter(), std::iter::empty())
    }

    fn state(values: &[&str]) -> String {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let states = values.iter().map(|value| value.as_bytes());
        Remote::read([parent.as_bytes()].into_iter(), states).unwrap().state
    }

    #[test]
    fn a_parent_is_read_and_goes_on_under_another_span() {
        let remote = parent(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        let context = Context::of(Some(remote), |_| panic!("the client has decided"));
        assert!(context.sampled);
        assert_eq!(context.parent.unwrap().to_string(), SPAN);
        let ours = SpanId::mint();
        assert_eq!(context.traceparent(ours), format!("00-{TRACE}-{ours}-01"));
    }

    #[test]
    fn flags_beside_the_first_are_not_passed_on() {
        for (flags, sampled) in [("00", "00"), ("01", "01"), ("02", "00"), ("03", "01"), ("ff", "01")] {
            let context = Context::of(parent(&format!("00-{TRACE}-{SPAN}-{flags}")), |_| true);
            assert!(context.traceparent(SpanId::mint()).ends_with(&format!("-{sampled}")), "{flags}");
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_this_one_goes() {
        for good in [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-01-what-comes-later")] {
            assert!(parent(&good).is_some(), "{good}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_no_parent() {
        let bad = [
            String::new(),
            "00".to_owned(),
            TRACE.to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-001"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}{SPAN}--01"),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("00-{}ü-{SPAN}-01", &TRACE[..30]),
            format!("+0-{TRACE}-{SPAN}-01"),
        ];
        for value in bad {
            assert_eq!(parent(&value), None, "{value}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        let twice = [good.as_bytes(), good.as_bytes()];
        assert_eq!(Remote::read(twice.into_iter(), std::iter::empty()), None);
    }

    #[test]
    fn states_are_joined_and_bad_ones_cost_only_themselves() {
        assert_eq!(state(&["a=1, b=2 ,,\tc@d=x y", "0t@v=3"]), "a=1,b=2,c@d=x y,0t@v=3");
        assert_eq!(state(&[]), "");
        let long = format!("a={}", "x".repeat(257));
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=1")).collect();
        let total = (0..4)
            .map(|number| format!("k{number}={}", "x".repeat(200)))
            .collect::<Vec<_>>()
            .join(",");
        for bad in [
            "a",
            "a=",
            "=1",
            "A=1",
            "1=1",
            "a=1,a=2",
            "a=b=c",
            "a@=1",
            "a@1=1",
            "a@b@c=1",
            "a =1",
            "ä=1",
            "a=ü",
            &long,
            &many.join(","),
            &total,
        ] {
            assert_eq!(state(&[bad]), "", "{bad}");
        }
    }

    #[test]
    fn a_trace_that_begins_here_is_chosen_by_its_id() {
        let begun = Context::of(None, |_| true);
        assert!(begun.sampled && begun.parent.is_none());
        assert!(!Context::of(None, |_| false).sampled);
        assert_ne!(begun.trace, Context::of(None, |_| true).trace);
    }
}
