//! A stretch of time as it is typed: how far back, or from when to when.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use jiff::Timestamp;

/// Which requests.
#[derive(Debug, Args)]
pub(super) struct Span {
    /// From then on: 30m, 24h or 7d ago, or a time like 2026-11-01T00:00:00Z
    #[arg(long, value_name = "WHEN", default_value = "24h", value_parser = moment)]
    since: i64,
    /// Until then; now, unless said otherwise
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<i64>,
}

impl Span {
    /// As the usage routes take it.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let until = self.until.map(|until| ("until_ms", until.to_string()));
        std::iter::once(("since_ms", self.since.to_string())).chain(until).collect()
    }
}

/// Unix milliseconds of a moment, for clap.
fn moment(text: &str) -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    read(text, i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn read(text: &str, now: i64) -> Result<i64, String> {
    let wrong = || "must be like 30m, 24h, 7d, or 2026-11-01T00:00:00Z".to_owned();
    let unit = match text.chars().next_back() {
        Some('s') => 1000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => {
            let time: Timestamp = text.parse().map_err(|_| wrong())?;
            return Ok(time.as_millisecond());
        }
    };
    let count: i64 = text.get(..text.len() - 1).and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let back = count.checked_mul(unit).filter(|_| count >= 0).ok_or_else(wrong)?;
    Ok(now.saturating_sub(back).max(0))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn moments_are_ages_or_times() {
        let now = 1_800_000_000_000;
        assert_eq!(read("90s", now), Ok(now - 90_000));
        assert_eq!(read("24h", now), Ok(now - 86_400_000));
        assert_eq!(read("7d", now), Ok(now - 7 * 86_400_000));
        assert_eq!(read("99999d", now), Ok(0));
        assert_eq!(read("2026-11-01T00:00:00Z", now), Ok(1_793_491_200_000));
        for wrong in ["", "d", "-1h", "yesterday", "1 h", "é", "999999999999999999d"] {
            assert!(read(wrong, now).is_err(), "{wrong:?}");
        }
    }
}
