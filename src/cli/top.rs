//! `obleth top`: fair share as it happens, who is entitled to what and who holds what.

use std::fmt::Write as _;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;

use super::remote::{Gateway, Remote};
use super::screen::Screen;
use super::table::{Output, printable};

/// Show fair share as it happens: what each tenant is entitled to and holds, who waits, tokens per second.
///
/// Tokens are those charged to the fair-share clock: what a request is expected to take when it begins, and the rest as it comes.
/// On a terminal it is redrawn in place until Ctrl-C, elsewhere printed line by line. OBLETH_ADMIN_TOKEN, or
/// OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// How often it is looked at, in milliseconds; tokens per second are counted between two looks
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
    /// Print it once and end: two looks, so that tokens per second are known
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

/// The parts of `/fairshare/live` that are shown.
#[derive(Deserialize)]
struct Live {
    max_in_flight: u32,
    global_in_flight: u32,
    global_queued: u32,
    tenants: Vec<Tenant>,
    model_in_flight: std::collections::BTreeMap<String, u32>,
    model_queued: std::collections::BTreeMap<String, u32>,
    fairness_index: Option<f64>,
}

#[derive(Deserialize)]
struct Tenant {
    tenant_id: String,
    name: String,
    fairshare_group: String,
    weight: u32,
    in_flight: u32,
    queued: u32,
    oldest_wait_ms: u64,
    expected_slots: f64,
    served_tokens: u64,
}

/// The gateway at one moment.
struct Look {
    at: Instant,
    live: Live,
}

impl Look {
    fn take(gateway: &Gateway) -> anyhow::Result<Self> {
        let text = gateway.get(&["fairshare", "live"])?;
        let live = serde_json::from_str(&text).context("the answer is none that this program knows")?;
        Ok(Self { at: Instant::now(), live })
    }

    /// What a tenant was served per second since an earlier look; nothing of one that was not there then.
    fn tokens_per_second(&self, before: &Self, tenant: &Tenant) -> f64 {
        let earlier = before.live.tenants.iter().find(|other| other.tenant_id == tenant.tenant_id);
        let served = earlier.map_or(0, |earlier| tenant.served_tokens.saturating_sub(earlier.served_tokens));
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        if seconds > 0.0 { served as f64 / seconds } else { 0.0 }
    }
}

/// Shows it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let gateway = flags.remote.connect()?;
    let interval = Duration::from_millis(flags.interval_ms);
    let mut screen = Screen::new();
    let mut before = Look::take(&gateway)?;
    loop {
        thread::sleep(interval);
        let now = match Look::take(&gateway) {
            Ok(now) => now,
            // Somebody watches: it may come back.
            Err(error) if screen.redraws() && !flags.once => {
                screen.show(&format!("{}\n", printable(&format!("{error:#}"))))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if flags.output.is_json() {
            writeln!(std::io::stdout(), "{}", json(&before, &now))?;
        } else if flags.once {
            write!(std::io::stdout(), "{}", drawing(&gateway.url(), &before, &now, usize::MAX))?;
        } else {
            screen.show(&drawing(&gateway.url(), &before, &now, screen.rows()))?;
        }
        if flags.once {
            return Ok(());
        }
        before = now;
    }
}

/// One line of JSON for scripts.
fn json(before: &Look, now: &Look) -> serde_json::Value {
    let Live { tenants, .. } = &now.live;
    let tenants = tenants.iter().map(|tenant| {
        serde_json::json!({
            "tenant_id": tenant.tenant_id,
            "name": tenant.name,
            "fairshare_group": tenant.fairshare_group,
            "weight": tenant.weight,
            "entitled_slots": tenant.expected_slots,
            "in_flight": tenant.in_flight,
            "queued": tenant.queued,
            "oldest_wait_ms": tenant.oldest_wait_ms,
            "tokens_per_second": now.tokens_per_second(before, tenant),
        })
    });
    serde_json::json!({
        "max_in_flight": now.live.max_in_flight,
        "in_flight": now.live.global_in_flight,
        "queued": now.live.global_queued,
        "fairness_index": now.live.fairness_index,
        "tenants": tenants.collect::<Vec<_>>(),
    })
}

const BAR_WIDTH: usize = 20;

/// `####|...`: the slots that are held filled in, the entitlement marked.
fn bar(tenant: &Tenant, slots: u32) -> String {
    let scale = |part: f64| {
        (part / f64::from(slots.max(1)) * BAR_WIDTH as f64)
            .round()
            .clamp(0.0, BAR_WIDTH as f64)
    };
    let (held, entitled) = (scale(f64::from(tenant.in_flight)), scale(tenant.expected_slots));
    let cell = |at: usize| match at as f64 {
        at if at == entitled => '|',
        at if at < held => '#',
        _ => ' ',
    };
    (0..=BAR_WIDTH).map(cell).collect()
}

/// The whole picture, in at most `rows` lines. Who waits stands first, the longest waiting before the others.
fn drawing(url: &str, before: &Look, now: &Look, rows: usize) -> String {
    let live = &now.live;
    let mut tenants: Vec<(&Tenant, f64)> = live
        .tenants
        .iter()
        .map(|tenant| (tenant, now.tokens_per_second(before, tenant)))
        .collect();
    tenants.sort_by(|(a, _), (b, _)| (b.oldest_wait_ms, b.in_flight, &a.name).cmp(&(a.oldest_wait_ms, a.in_flight, &b.name)));
    let all: f64 = tenants.iter().map(|(_, rate)| rate).sum();
    let width = tenants
        .iter()
        .map(|(tenant, _)| tenant.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(6, 32);

    let mut lines = vec![format!(
        "{url}   in flight {}/{}   queued {}   tokens/s {all:.0}   fairness {}",
        live.global_in_flight,
        live.max_in_flight,
        live.global_queued,
        live.fairness_index.map_or_else(|| "-".to_owned(), |index| format!("{index:.3}")),
    )];
    let models = live
        .model_in_flight
        .keys()
        .chain(live.model_queued.keys())
        .collect::<std::collections::BTreeSet<_>>();
    let count = |of: &std::collections::BTreeMap<String, u32>, model: &str| of.get(model).copied().unwrap_or(0);
    let models = models.into_iter().map(|model| {
        format!(
            "{model} {}+{}",
            count(&live.model_in_flight, model),
            count(&live.model_queued, model)
        )
    });
    lines.push(format!("models, in flight + queued: {}", models.collect::<Vec<_>>().join("  ")));
    lines.push(String::new());
    lines.push(format!(
        "{:<width$}  {:<10}  {:>7}  {:>8}  {:>4}  {:<21}  {:>6}  {:>8}  {:>8}  {:>6}",
        "TENANT", "GROUP", "WEIGHT", "ENTITLED", "HELD", "# HELD  | ENTITLED", "QUEUED", "WAIT MS", "TOKENS/S", "SHARE"
    ));
    let room = rows.saturating_sub(lines.len() + 1).max(1);
    for (tenant, rate) in tenants.iter().take(room) {
        let clip = |text: &str, width: usize| text.chars().take(width).collect::<String>();
        let share = if all > 0.0 { rate / all * 100.0 } else { 0.0 };
        lines.push(format!(
            "{:<width$}  {:<10}  {:>7}  {:>8.1}  {:>4}  {:<21}  {:>6}  {:>8}  {rate:>8.0}  {share:>5.1}%",
            clip(&tenant.name, width),
            clip(&tenant.fairshare_group, 10),
            tenant.weight,
            tenant.expected_slots,
            tenant.in_flight,
            bar(tenant, live.max_in_flight),
            tenant.queued,
            tenant.oldest_wait_ms,
        ));
    }
    if tenants.len() > room {
        lines.push(format!("and {} more", tenants.len() - room));
    }
    let mut text = String::new();
    for line in lines {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", printable(line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, served: u64) -> Look {
        let live = serde_json::from_value(serde_json::json!({
            "max_in_flight": 10, "global_in_flight": 4, "global_queued": 7, "fairness_index": null,
            "model_in_flight": { "llama": 4 }, "model_queued": { "llama": 7 },
            "tenants": [
                { "tenant_id": "a", "name": "idle\u{1b}[2J", "fairshare_group": "default", "weight": 100, "in_flight": 0, "queued": 0,
                  "oldest_wait_ms": 0, "expected_slots": 0.0, "served_tokens": 5 },
                { "tenant_id": "b", "name": "busy", "fairshare_group": "default", "weight": 100, "in_flight": 4, "queued": 7,
                  "oldest_wait_ms": 1234, "expected_slots": 10.0, "served_tokens": served },
            ],
        }));
        Look { at, live: live.unwrap() }
    }

    #[test]
    fn who_waits_stands_first_and_rates_are_between_two_looks() {
        let start = Instant::now();
        let text = drawing(
            "http://gateway",
            &look(start, 1000),
            &look(start + Duration::from_secs(2), 1300),
            20,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("in flight 4/10   queued 7   tokens/s 150   fairness -"), "{text}");
        assert!(lines[1].ends_with("llama 4+7"), "{text}");
        assert!(
            lines[4].starts_with("busy") && lines[4].contains("1234") && lines[4].ends_with("150  100.0%"),
            "{text}"
        );
        assert!(lines[4].contains("########            |"), "{text}");
        assert!(lines[5].starts_with("idle\u{fffd}[2J"), "{text}");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let start = Instant::now();
        let text = drawing("u", &look(start, 0), &look(start, 0), 6);
        assert!(text.ends_with("and 1 more\n") && text.lines().count() == 6, "{text}");
    }
}
