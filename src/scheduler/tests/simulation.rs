//! A discrete-event simulator of an inference cluster: slots that prefill at 8000 tokens a second and decode at 40, clients
//! that keep requests waiting. It measures what tenants *get*, token by token, not what they are charged.
#![expect(clippy::cast_possible_truncation, reason = "simulated seconds and tokens, far below the limits")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::scheduler::{Entered, Grant, Leave, ModelIx, Request, TicketIx};

const DECODE_PER_S: f64 = 40.0;
const PREFILL_PER_S: f64 = 8000.0;
/// Tokens between two reports of progress, as the proxy's tap makes them.
const STEP: u64 = 16;
pub(super) const WINDOW_S: f64 = 10.0;

/// Lengths of answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output {
    /// Always the same: requests finish in lockstep.
    Fixed(u64),
    /// Log-normal of this median and sigma, clamped to 10 to 4000 tokens.
    LogNormal(f64, f64),
}

/// How a tenant behaves.
#[derive(Debug, Clone)]
pub(super) struct Behaviour {
    pub(super) output: Output,
    /// Requests it keeps in the system.
    pub(super) outstanding: u32,
    /// What it says of the answer's length.
    pub(super) max_tokens: Option<u64>,
    /// The part of each answer after which it goes away.
    pub(super) aborts_at: Option<f64>,
    /// Seconds between an answer and the next request; 0 for a backlogged tenant.
    pub(super) thinks_s: f64,
    /// Models it asks, as many requests of one as of another; empty for one without a cap.
    pub(super) models: Vec<Handle<ModelIx>>,
    /// While it asks, in seconds.
    pub(super) active_s: (f64, f64),
}

impl Behaviour {
    pub(super) fn backlogged(output: Output) -> Self {
        Self {
            output,
            outstanding: 100,
            max_tokens: None,
            aborts_at: None,
            thinks_s: 0.0,
            models: Vec::new(),
            active_s: (0.0, f64::INFINITY),
        }
    }
}

struct Client {
    tenant: Handle<TenantIx>,
    behaviour: Behaviour,
    /// Token units it got, per window.
    got: BTreeMap<usize, f64>,
    waits_s: Vec<(f64, f64)>,
}

struct Job {
    client: usize,
    model: Option<usize>,
    output: u64,
    entered_s: f64,
    ticket: Option<Handle<TicketIx>>,
    produced: u64,
    charge_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A client's next request, for one of its models.
    Ask(usize, Option<usize>),
    /// A job has produced so many tokens.
    Produced(u32, u64),
}

/// The cluster and its clients.
pub(super) struct Simulation {
    pub(super) scheduler: Scheduler,
    random: StdRng,
    clients: Vec<Client>,
    jobs: Vec<Job>,
    /// By time in nanoseconds, then in order.
    agenda: BinaryHeap<Reverse<(u64, u64, What)>>,
    sequence: u64,
    now_ns: u64,
    busy_s: f64,
    /// What went where: (client, model) → token units.
    pub(super) got_by_model: BTreeMap<(usize, Option<usize>), f64>,
}

impl Simulation {
    pub(super) fn new(slots: u32, seed: u64) -> Self {
        let mut scheduler = Scheduler::new(Settings {
            max_queued: 100_000,
            // Patience is not the subject here.
            queue_timeout: Duration::from_secs(100_000),
            overload_wait: Duration::from_secs(100_000),
            ..Settings::default()
        });
        scheduler.set_max_in_flight(slots);
        Self {
            scheduler,
            random: StdRng::seed_from_u64(seed),
            clients: Vec::new(),
            jobs: Vec::new(),
            agenda: BinaryHeap::new(),
            sequence: 0,
            now_ns: 0,
            busy_s: 0.0,
            got_by_model: BTreeMap::new(),
        }
    }

    /// A tenant that behaves so. Returns its number.
    pub(super) fn client(&mut self, terms: &TenantTerms, behaviour: Behaviour) -> usize {
        let tenant = tenant(&mut self.scheduler, terms);
        let at = self.clients.len();
        for n in 0..behaviour.outstanding {
            // A thousandth of a second apart, so that order among equals is not the order of making.
            let begin_s = behaviour.active_s.0 + f64::from(n) * 1e-3 + behaviour.thinks_s * self.random.random::<f64>();
            let models = behaviour.models.len();
            let model = (models > 0).then(|| n as usize % models);
            self.plan(begin_s, What::Ask(at, model));
        }
        self.clients.push(Client {
            tenant,
            behaviour,
            got: BTreeMap::new(),
            waits_s: Vec::new(),
        });
        at
    }

    pub(super) fn now_s(&self) -> f64 {
        self.now_ns as f64 / 1e9
    }

    pub(super) fn run_until(&mut self, end_s: f64) {
        let end_ns = (end_s * 1e9) as u64;
        while let Some(Reverse((at_ns, ..))) = self.agenda.peek().copied() {
            if at_ns > end_ns {
                break;
            }
            let Some(Reverse((at_ns, _, what))) = self.agenda.pop() else {
                break;
            };
            self.busy_s += f64::from(self.scheduler.in_flight()) * (at_ns - self.now_ns) as f64 / 1e9;
            self.now_ns = at_ns;
            match what {
                What::Ask(client, model) => self.ask(client, model),
                What::Produced(job, tokens) => self.produced(job, tokens),
            }
            self.take_events();
        }
    }

    /// Slots in use, on average over the whole run.
    pub(super) fn busy(&self) -> f64 {
        self.busy_s / self.now_s()
    }

    /// Token units that a client got from one moment to another, both on window borders.
    pub(super) fn got(&self, client: usize, from_s: f64, to_s: f64) -> f64 {
        let (from, to) = ((from_s / WINDOW_S) as usize, (to_s / WINDOW_S) as usize);
        self.clients[client].got.range(from..to).map(|(_, units)| units).sum()
    }

    /// Waits that ended after `from_s`, in seconds, sorted.
    pub(super) fn waits(&self, client: usize, from_s: f64) -> Vec<f64> {
        let waits = self.clients[client].waits_s.iter().filter(|(at, _)| *at >= from_s);
        let mut waits: Vec<f64> = waits.map(|(_, wait)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }

    /// When a client's first request ran, in seconds.
    pub(super) fn first_grant_s(&self, client: usize) -> f64 {
        self.clients[client].waits_s[0].0
    }

    fn plan(&mut self, at_s: f64, what: What) {
        self.sequence += 1;
        self.agenda.push(Reverse(((at_s * 1e9) as u64, self.sequence, what)));
    }

    fn ask(&mut self, client: usize, model: Option<usize>) {
        let now_s = self.now_s();
        let owner = u32::try_from(self.jobs.len()).unwrap();
        let Client { tenant, ref behaviour, .. } = self.clients[client];
        if now_s >= behaviour.active_s.1 {
            return;
        }
        let output = match behaviour.output {
            Output::Fixed(tokens) => tokens,
            Output::LogNormal(median, sigma) => {
                // Box & Muller 1958.
                let (a, b): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
                let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                (median * (sigma * normal).exp()).clamp(10.0, 4000.0) as u64
            }
        };
        let request = Request {
            tenant,
            key: None,
            model: model.map(|model| behaviour.models[model]),
            input_tokens: 200,
            max_tokens: behaviour.max_tokens,
            body_bytes: 0,
            patience: None,
            owner,
        };
        self.jobs.push(Job {
            client,
            model,
            output,
            entered_s: now_s,
            ticket: None,
            produced: 0,
            charge_at: 0,
        });
        let now = Moment::from_start(Duration::from_nanos(self.now_ns));
        if let Entered::Granted(grant) = self.scheduler.enter(&request, now).unwrap() {
            self.begin(owner, &grant);
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.scheduler.next_event() {
            match event {
                Event::Granted { owner, grant } => self.begin(owner, &grant),
                other => panic!("nobody gives up here: {other:?}"),
            }
        }
    }

    fn begin(&mut self, owner: u32, grant: &Grant) {
        let now_s = self.now_s();
        let job = &mut self.jobs[owner as usize];
        job.ticket = Some(grant.ticket);
        job.charge_at = grant.charge_at;
        let wait = (now_s, now_s - job.entered_s);
        let (client, model) = (job.client, job.model);
        self.clients[client].waits_s.push(wait);
        self.credit(client, model, 50.0);
        self.plan(now_s + 200.0 / PREFILL_PER_S, What::Produced(owner, 0));
    }

    fn credit(&mut self, client: usize, model: Option<usize>, units: f64) {
        let window = (self.now_s() / WINDOW_S) as usize;
        *self.clients[client].got.entry(window).or_default() += units;
        *self.got_by_model.entry((client, model)).or_default() += units;
    }

    fn produced(&mut self, owner: u32, tokens: u64) {
        let job = &self.jobs[owner as usize];
        let (client, model, ticket, total) = (job.client, job.model, job.ticket.unwrap(), job.output);
        let more = (tokens - job.produced) as f64;
        self.credit(client, model, more);
        self.jobs[owner as usize].produced = tokens;
        let behaviour = &self.clients[client].behaviour;
        let stop = behaviour.aborts_at.map_or(total, |part| (total as f64 * part) as u64);
        if tokens < stop {
            if tokens >= self.jobs[owner as usize].charge_at {
                self.jobs[owner as usize].charge_at = self.scheduler.progress(ticket, tokens);
            }
            let step = STEP.min(stop - tokens);
            return self.plan(self.now_s() + step as f64 / DECODE_PER_S, What::Produced(owner, tokens + step));
        }
        let how = match behaviour.aborts_at {
            Some(_) => Leave::Aborted { output: tokens },
            None => Leave::Settled {
                input: 200,
                output: tokens,
            },
        };
        let next_s = self.now_s() + behaviour.thinks_s;
        let now = Moment::from_start(Duration::from_nanos(self.now_ns));
        // The next request first: a backlogged tenant is never without one.
        if behaviour.thinks_s > 0.0 {
            self.plan(next_s, What::Ask(client, model));
        } else {
            self.ask(client, model);
        }
        assert!(self.scheduler.leave(ticket, how, now));
    }
}

/// Mean over windows of the mean distance between shares got and shares due; and Jain's index, likewise.
pub(super) fn fairness(simulation: &Simulation, weights: &[(usize, f64)], from_s: f64, to_s: f64) -> (f64, f64) {
    let total_weight: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let (mut error, mut jain, mut windows) = (0.0, 0.0, 0.0);
    let mut at_s = from_s;
    while at_s < to_s {
        let got: Vec<f64> = weights
            .iter()
            .map(|(client, _)| simulation.got(*client, at_s, at_s + WINDOW_S))
            .collect();
        let total: f64 = got.iter().sum();
        let shares = got
            .iter()
            .zip(weights)
            .map(|(got, (_, weight))| (got / total - weight / total_weight).abs());
        error += shares.fold(0.0, f64::max);
        let rates: Vec<f64> = got.iter().zip(weights).map(|(got, (_, weight))| got / weight).collect();
        let (sum, squares): (f64, f64) = (rates.iter().sum(), rates.iter().map(|rate| rate * rate).sum());
        jain += sum * sum / (rates.len() as f64 * squares);
        windows += 1.0;
        at_s += WINDOW_S;
    }
    (error / windows, jain / windows)
}
