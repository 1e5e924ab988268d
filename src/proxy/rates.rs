//! The `x-ratelimit-*` headers, as OpenAI writes them.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::limits::RateView;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

/// Writes limit, what remains and the time until all of it is back, for each limit there is.
pub(super) fn write(head: &mut ResponseHeader, view: &RateView) -> Result<()> {
    if let Some(window) = &view.requests {
        head.insert_header(LIMIT_REQUESTS, HeaderValue::from(window.limit))?;
        head.insert_header(REMAINING_REQUESTS, HeaderValue::from(window.remaining))?;
        head.insert_header(RESET_REQUESTS, in_words(window.reset))?;
    }
    if let Some(window) = &view.tokens {
        head.insert_header(LIMIT_TOKENS, HeaderValue::from(window.limit))?;
        head.insert_header(REMAINING_TOKENS, HeaderValue::from(window.remaining))?;
        head.insert_header(RESET_TOKENS, in_words(window.reset))?;
    }
    Ok(())
}

/// A duration in the notation of Go's `time.Duration`, which OpenAI's headers use: `20ms`, `1s`, `8.64s`, `6m0s`, `1h0m0s`.
/// Whole milliseconds, rounded up: who comes back when told must not be early.
pub(super) fn in_words(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let mut words = String::new();
    // Writing to a String cannot fail.
    if seconds >= 3600 {
        let _ = write!(words, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(words, "{}m", seconds / 60 % 60);
    }
    let _ = write!(words, "{}", seconds % 60);
    if ms > 0 {
        let _ = write!(words, ".{}", format!("{ms:03}").trim_end_matches('0'));
    }
    words.push('s');
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_openai_writes_them() {
        for (duration, words) in [
            (Duration::ZERO, "0ms"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(20), "20ms"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_millis(8640), "8.64s"),
            (Duration::from_secs(360), "6m0s"),
            (Duration::from_millis(61_005), "1m1.005s"),
            (Duration::from_secs(3600), "1h0m0s"),
        ] {
            assert_eq!(in_words(duration), words);
        }
    }
}
