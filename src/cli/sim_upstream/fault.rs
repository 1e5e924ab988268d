//! Ways in which an inference server goes wrong, asked for by `--fault`, the header `x-sim-fault` or the body field `sim_fault`.
//!
//! The grammar is a list, `delay=200,status=503,times=1`, so that one request can be late *and* fail. `times=N` ends the
//! fault after its N-th use (counted per spelling), which is how a retry gets to succeed.

use std::str::FromStr;
use std::time::Duration;

/// What is said about tokens at the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum UsageFault {
    /// What the protocol asks for.
    #[default]
    None,
    /// Nothing, whether asked or not.
    Missing,
    /// Two usage chunks, only the second of which knows the cached tokens.
    Twice,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ending {
    /// An answer, whole.
    #[default]
    Whole,
    /// Silence after so many token chunks; 0 is silence after the head.
    Stall(u64),
    /// The socket is closed after so many token chunks, without the end of the body.
    Cut(u64),
    /// The connection is reset before the head.
    Reset,
    /// Bytes that are no HTTP, then the end.
    Garbage,
    /// 307 to another path.
    Redirect,
}

/// Everything that goes wrong with one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fault {
    /// Before the head.
    pub(super) delay: Duration,
    /// An error of this status instead of an answer.
    pub(super) status: Option<u16>,
    /// Seconds in the error's `retry-after`.
    pub(super) retry_after: Option<u32>,
    pub(super) ending: Ending,
    pub(super) usage: UsageFault,
    /// Compresses the answer although asked not to.
    pub(super) gzip: bool,
    /// How often the fault occurs; `None` is always.
    pub(super) times: Option<u32>,
}

/// A fault that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read the fault `{0}`: expected a comma-separated list of delay=MS, status=NNN, retry-after=S, stall[=N], cut=N, reset, \
     garbage, redirect, gzip, no-usage, usage-twice, times=N"
)]
pub(super) struct Unreadable(String);

impl FromStr for Fault {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut fault = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            fault.add(part.trim()).ok_or_else(|| Unreadable(part.to_owned()))?;
        }
        Ok(fault)
    }
}

impl Fault {
    fn add(&mut self, part: &str) -> Option<()> {
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("delay", Some(value)) => self.delay = Duration::from_millis(value.parse().ok()?),
            ("status", Some(value)) => self.status = Some(value.parse().ok().filter(|status| (400..600).contains(status))?),
            ("retry-after", Some(value)) => self.retry_after = Some(value.parse().ok()?),
            ("stall", None) => self.ending = Ending::Stall(0),
            ("stall", Some(value)) => self.ending = Ending::Stall(value.parse().ok()?),
            ("cut", Some(value)) => self.ending = Ending::Cut(value.parse().ok()?),
            ("reset", None) => self.ending = Ending::Reset,
            ("garbage", None) => self.ending = Ending::Garbage,
            ("redirect", None) => self.ending = Ending::Redirect,
            ("gzip", None) => self.gzip = true,
            ("no-usage", None) => self.usage = UsageFault::Missing,
            ("usage-twice", None) => self.usage = UsageFault::Twice,
            ("times", Some(value)) => self.times = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_combine_and_typing_errors_are_named() {
        let fault: Fault = "delay=200,status=503,retry-after=7,times=1".parse().unwrap();
        assert_eq!(fault.delay, Duration::from_millis(200));
        assert_eq!((fault.status, fault.retry_after, fault.times), (Some(503), Some(7), Some(1)));
        assert_eq!("stall".parse::<Fault>().unwrap().ending, Ending::Stall(0));
        assert_eq!("stall=3".parse::<Fault>().unwrap().ending, Ending::Stall(3));
        assert_eq!("".parse::<Fault>().unwrap(), Fault::default());
        for wrong in ["status=200", "status", "cut", "reset=1", "later=1", "delay=x"] {
            assert_eq!(wrong.parse::<Fault>().unwrap_err(), Unreadable(wrong.to_owned()), "{wrong}");
        }
    }
}
