//! `obleth demo`: what the gateway is for, in half a minute, on this machine, with nothing set up before.
//!
//! Two tenants flood one small inference server; a third comes late and asks little. The demo starts the simulated server
//! and a gateway as children of itself, sends real streamed requests, shows who gets what, and judges at the end.

mod child;
mod house;
mod load;
mod table;
mod verdict;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::screen::Screen;
use house::{House, Live, MODEL};
use load::Client;
use table::Row;
use verdict::Verdict;

/// What the upstream can do at once.
const SLOTS: u32 = 16;
/// Requests each flood keeps going: far more than there are slots, so that there is always a queue.
const FLOOD: usize = 48;
const FLOODS: [(&str, u32); 2] = [("gold", 500), ("bronze", 50)];
const NEWCOMER: (&str, u32) = ("newcomer", 50);
/// When the newcomer comes, as a part of the whole time.
const NEWCOMER_AT: f64 = 0.4;
const NEWCOMER_EVERY: Duration = Duration::from_millis(700);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Off a terminal, only every so many samples are printed.
const PLAIN_EVERY: usize = 4;
/// Less saturated time proves nothing.
const SATURATED_MIN: f64 = 0.5;

/// Show fair queueing at work: two floods and a newcomer on one simulated inference server.
///
/// Fails if a flood's share of the tokens is more than 10 % off its weight's share.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// How long the floods last; in less than ten seconds, one request more or less would already look unfair
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: u64,
    /// Leave gateway and upstream running afterwards, and say how to use them
    #[arg(long)]
    keep: bool,
}

/// Runs it from beginning to end.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = show(flags) => done,
            stopped = super::signal::stop() => stopped.and_then(|()| bail!("stopped before the end")),
        }
    })
}

async fn show(flags: &Flags) -> anyhow::Result<()> {
    let house = House::start(SLOTS)?;
    house.add_model().await?;
    let mut cast = Vec::new();
    for (name, weight) in FLOODS.into_iter().chain([NEWCOMER]) {
        let key = house
            .add_tenant(name, weight)
            .await
            .with_context(|| format!("cannot make the tenant {name}"))?;
        cast.push(Actor {
            name,
            weight,
            client: Client::new(&house, key.clone()),
            key,
            last: 0,
        });
    }
    let whole = Duration::from_secs(flags.seconds);
    say(&format!(
        "One inference server with {SLOTS} slots (simulated), one gateway. gold (weight {}) and bronze (weight {}) flood it with {FLOOD}\n\
         requests each at any time; newcomer (weight {}) comes after {:.0} s and asks for little.\n",
        FLOODS[0].1,
        FLOODS[1].1,
        NEWCOMER.1,
        whole.as_secs_f64() * NEWCOMER_AT
    ))?;
    let verdict = perform(&house, &mut cast, whole).await?;
    let fair = summary(&verdict, &cast)?;
    if flags.keep {
        keep(house, &cast)?;
    }
    ensure!(
        fair,
        "the shares are more than {:.0} % off what the weights entitle to",
        verdict::TOLERANCE * 100.0
    );
    Ok(())
}

/// A tenant on stage.
struct Actor {
    name: &'static str,
    weight: u32,
    key: String,
    client: Arc<Client>,
    /// Tokens at the last sample.
    last: u64,
}

/// Floods, samples and shows until the time is over.
async fn perform(house: &House, cast: &mut [Actor], whole: Duration) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::new(&FLOODS);
    let mut screen = Screen::new();
    let start = Instant::now();
    let until = start + whole;
    let (newcomer, floods) = cast.split_last().context("nobody on stage")?;
    for actor in floods {
        actor.client.flood(FLOOD, until);
    }
    newcomer.client.trickle(NEWCOMER_EVERY, start + whole.mul_f64(NEWCOMER_AT), until);
    let mut sampled = start;
    for round in 1.. {
        tokio::time::sleep(SAMPLE_EVERY).await;
        if Instant::now() >= until {
            break;
        }
        let live = house.live().await?;
        let elapsed = sampled.elapsed();
        sampled = Instant::now();
        let queued = |name: &str| {
            live.tenants
                .iter()
                .find(|tenant| tenant.name == name)
                .map_or(0, |tenant| tenant.queued)
        };
        let now: Vec<_> = FLOODS
            .iter()
            .zip(&*cast)
            .map(|((name, _), actor)| (actor.client.seen.tokens(), queued(name)))
            .collect();
        verdict.sample(elapsed, &now);
        if screen.redraws() || round % PLAIN_EVERY == 0 {
            // Between two shown samples of the plain form lie several of the verdict's.
            let since = if screen.redraws() {
                elapsed
            } else {
                SAMPLE_EVERY * u32::try_from(PLAIN_EVERY)?
            };
            let rows = rows(cast, &live, since);
            let picture = if screen.redraws() { table::drawing } else { table::plain };
            screen.show(&picture(start.elapsed(), &rows))?;
        }
    }
    Ok(verdict)
}

/// The table's rows, and the actors' tokens remembered for the next.
fn rows(cast: &mut [Actor], live: &Live, since: Duration) -> Vec<Row> {
    let fresh: Vec<u64> = cast.iter().map(|actor| actor.client.seen.tokens() - actor.last).collect();
    let all: u64 = fresh.iter().sum();
    let mut rows = Vec::new();
    for (actor, fresh) in cast.iter_mut().zip(fresh) {
        actor.last += fresh;
        let seen = live.tenants.iter().find(|tenant| tenant.name == actor.name);
        let active = seen.filter(|tenant| tenant.in_flight > 0 || tenant.queued > 0);
        rows.push(Row {
            name: actor.name,
            weight: actor.weight,
            entitled: active.map(|tenant| tenant.expected_slots / f64::from(live.max_in_flight.max(1))),
            in_flight: seen.map_or(0, |tenant| tenant.in_flight),
            queued: seen.map_or(0, |tenant| tenant.queued),
            tokens_per_second: fresh as f64 / since.as_secs_f64().max(f64::EPSILON),
            share: fresh as f64 / all.max(1) as f64,
            wait_p50: actor.client.seen.wait_p50(),
        });
    }
    rows
}

/// Tells how it went; whether it was fair.
fn summary(verdict: &Verdict, cast: &[Actor]) -> anyhow::Result<bool> {
    let whole = verdict.saturated.as_secs_f64();
    say(&format!(
        "\nBoth floods were backlogged for {whole:.1} s. What they got of each other's tokens:"
    ))?;
    let mut fair = true;
    for (flood, share) in verdict.floods.iter().zip(verdict.shares()) {
        fair &= share.is_fair();
        say(&format!(
            "  {:<8} {:>6} tokens  {:>5.1} % attained, {:>5.1} % entitled ({:+.1} %)  {}",
            flood.name,
            flood.tokens,
            share.attained * 100.0,
            share.entitled * 100.0,
            share.off() * 100.0,
            if share.is_fair() { "fair" } else { "UNFAIR" },
        ))?;
    }
    for actor in cast {
        if let Some(error) = actor.client.seen.last_error() {
            bail!(
                "{} requests of {} failed; the last one: {error}",
                actor.client.seen.errors(),
                actor.name
            );
        }
    }
    let newcomer = cast.last().context("nobody on stage")?;
    let (first, median) = newcomer.client.seen.first_token().context("the newcomer got nothing")?;
    say(&format!(
        "  {:<8} got its first token after {} (median {}) while gold's and bronze's requests queued for {} and {} (median)",
        newcomer.name,
        table::wait(Some(first)),
        table::wait(Some(median)),
        table::wait(cast[0].client.seen.wait_p50()),
        table::wait(cast[1].client.seen.wait_p50()),
    ))?;
    let asked: f64 = cast[0].client.seen.tokens() as f64;
    ensure!(
        asked > 0.0 && whole > SATURATED_MIN,
        "the floods were never both backlogged: nothing was shown"
    );
    Ok(fair)
}

/// Leaves everything running and says how to use it.
fn keep(house: House, cast: &[Actor]) -> anyhow::Result<()> {
    let House {
        gateway,
        upstream,
        scratch,
        data,
        management,
        token,
        ..
    } = house;
    say(&format!(
        "\nStill running: gateway (process {gateway_id}) and simulated upstream (process {upstream_id}). Try:\n\n\
         curl -N {data}/v1/chat/completions -H 'Authorization: Bearer {key}' \\\n     \
         -d '{{\"model\":\"{MODEL}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\n\
         export OBLETH_ADMIN_TOKEN={token}\n\
         curl {management}/api/v1/fairshare/live -H \"Authorization: Bearer $OBLETH_ADMIN_TOKEN\"\n\n\
         Stop them with: kill {gateway_id} {upstream_id}; rm -r {folder}",
        gateway_id = gateway.id(),
        upstream_id = upstream.id(),
        key = cast[0].key,
        folder = scratch.path().display(),
    ))?;
    gateway.detach();
    upstream.detach();
    scratch.keep();
    Ok(())
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}
