//! The live table: a picture for a terminal, a line per tenant elsewhere.

use std::fmt::Write as _;
use std::time::Duration;

const BAR_WIDTH: usize = 30;

/// One tenant's line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    /// Of the slots, by weight among those that are active, 0 to 1; `None` while it is not.
    pub(super) entitled: Option<f64>,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) tokens_per_second: f64,
    /// Of all tokens since the last sample, 0 to 1.
    pub(super) share: f64,
    pub(super) wait_p50: Option<Duration>,
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// Milliseconds below ten seconds, seconds above.
pub(super) fn wait(wait: Option<Duration>) -> String {
    match wait {
        None => "-".to_owned(),
        Some(wait) if wait < Duration::from_secs(10) => format!("{} ms", wait.as_millis()),
        Some(wait) => format!("{:.1} s", wait.as_secs_f64()),
    }
}

/// `####|...`: the share filled in, the entitlement marked.
fn bar(row: &Row) -> String {
    let at = |share: f64| (share * BAR_WIDTH as f64).round().clamp(0.0, BAR_WIDTH as f64);
    let (filled, mark) = (at(row.share), row.entitled.map(at));
    let cell = |index: usize| match mark {
        Some(mark) if index as f64 == mark => '|',
        _ if (index as f64) < filled => '#',
        _ => ' ',
    };
    (0..=BAR_WIDTH).map(cell).collect()
}

/// For a terminal.
pub(super) fn drawing(at: Duration, rows: &[Row]) -> String {
    let mut text = format!("after {:.0} s    # share of tokens   | share by weight\n\n", at.as_secs_f64());
    text += "TENANT     WEIGHT  ENTITLED  IN FLIGHT  QUEUED  TOKENS/S   SHARE  WAIT P50\n";
    for row in rows {
        let Row {
            name,
            weight,
            in_flight,
            queued,
            tokens_per_second,
            ..
        } = row;
        let (entitled, share, wait) = (percent(row.entitled), percent(Some(row.share)), wait(row.wait_p50));
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<10} {weight:>6}  {entitled:>8}  {in_flight:>9}  {queued:>6}  {tokens_per_second:>8.0}  {share:>6}  {wait:>8}  {}",
            bar(row)
        );
    }
    text
}

/// For a log.
pub(super) fn plain(at: Duration, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{:>3.0}s {:<10} weight {:>3}  entitled {:>5}  in flight {:>2}  queued {:>3}  tokens/s {:>5.0}  share {:>5}  wait p50 {}",
            at.as_secs_f64(),
            row.name,
            row.weight,
            percent(row.entitled),
            row.in_flight,
            row.queued,
            row.tokens_per_second,
            percent(Some(row.share)),
            wait(row.wait_p50),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(entitled: Option<f64>, share: f64) -> Row {
        Row {
            name: "gold",
            weight: 500,
            entitled,
            in_flight: 3,
            queued: 9,
            tokens_per_second: 120.4,
            share,
            wait_p50: None,
        }
    }

    #[test]
    fn the_bar_shows_share_and_entitlement() {
        assert_eq!(bar(&row(Some(0.5), 0.2)), format!("######{}|{}", " ".repeat(9), " ".repeat(15)));
        assert_eq!(bar(&row(None, 1.0)), format!("{} ", "#".repeat(30)));
    }

    #[test]
    fn lines_have_a_dash_for_what_is_not_known() {
        let text = plain(Duration::from_secs(4), &[row(None, 0.25)]);
        assert!(
            text.contains("entitled     -") && text.contains("share 25.0%") && text.ends_with("wait p50 -\n"),
            "{text}"
        );
        assert_eq!(wait(Some(Duration::from_millis(12_345))), "12.3 s");
    }
}
