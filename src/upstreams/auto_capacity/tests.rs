//! The rule against three simulated engines, in pretend time.

use super::*;

/// A simulated engine: a batch that makes one token per request and step, and a queue before it.
struct Engine {
    /// Requests in the batch at most.
    slots: f64,
    /// Sum of the lengths of the requests in the batch at most: its key-value cache.
    cache: f64,
    /// The time per token is the greater of a floor and so much per request in the batch.
    floor: f64,
    per_request: f64,
    /// What is added per request, whatever the batch.
    slope: f64,
    tells_queue: bool,
    random: u64,
    running: Vec<Request>,
    waiting: Vec<Request>,
    tokens: f64,
}

struct Request {
    length: f64,
    left: f64,
}

impl Engine {
    fn new(slots: f64, cache: f64, floor: f64, per_request: f64, slope: f64, tells_queue: bool, seed: u64) -> Self {
        Self {
            slots,
            cache,
            floor,
            per_request,
            slope,
            tells_queue,
            random: seed,
            running: Vec::new(),
            waiting: Vec::new(),
            tokens: 0.0,
        }
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    fn token_time(&self) -> f64 {
        let n = self.running.len() as f64;
        (self.floor + self.slope * n).max(self.per_request * n)
    }

    /// Fills up to `limit` and lets `dt` seconds pass.
    fn run(&mut self, limit: u32, dt: f64) {
        while self.in_flight() < limit as usize {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = 50.0 + (self.random >> 33) as f64 % 200.0;
            self.waiting.push(Request { length, left: length });
        }
        while let Some(next) = self.waiting.first() {
            let used: f64 = self.running.iter().map(|request| request.length).sum();
            if self.running.len() as f64 >= self.slots || used + next.length > self.cache {
                break;
            }
            let next = self.waiting.remove(0);
            self.running.push(next);
        }
        let made = dt / self.token_time();
        for request in &mut self.running {
            self.tokens += made.min(request.left);
            request.left -= made;
        }
        self.running.retain(|request| request.left > 0.0);
    }

    fn seen(&self) -> Seen {
        Seen {
            addresses: 1,
            in_flight: u32::try_from(self.in_flight()).unwrap(),
            waiting: self.tells_queue.then_some(self.waiting.len() as f64),
            running: self.tells_queue.then_some(self.running.len() as f64),
            token_time: Some(Duration::from_secs_f64(self.token_time())),
        }
    }

    /// Tokens per second over `seconds` at a fixed limit.
    fn fixed(&mut self, limit: u32, seconds: u32) -> f64 {
        for _ in 0..200 {
            self.run(limit, 0.1);
        }
        let before = self.tokens;
        for _ in 0..seconds * 10 {
            self.run(limit, 0.1);
        }
        (self.tokens - before) / f64::from(seconds)
    }
}

struct Run {
    rules: Rules,
    auto: AutoCapacity,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        let rules = Rules::default();
        Self {
            auto: AutoCapacity::new(&rules),
            rules,
            now: Instant::now(),
        }
    }

    /// Tokens per second and mean waiting over `seconds`.
    fn run(&mut self, engine: &mut Engine, seconds: u32) -> (f64, f64) {
        let before = engine.tokens;
        let mut waiting = 0.0;
        for _ in 0..seconds * 10 {
            engine.run(self.auto.limit(), 0.1);
            waiting += engine.waiting.len() as f64;
            self.now += Duration::from_millis(100);
            self.auto.step(self.now, Some(&engine.seen()), &self.rules);
        }
        ((engine.tokens - before) / f64::from(seconds), waiting / f64::from(seconds * 10))
    }
}

/// The best throughput of any fixed limit, and the least limit that comes within a hundredth of it.
fn best(engine: impl Fn() -> Engine) -> (f64, u32) {
    let all: Vec<(f64, u32)> = (1..=24)
        .map(|step| step * 8)
        .map(|limit| (engine().fixed(limit, 60), limit))
        .collect();
    let most = all.iter().map(|(throughput, _)| *throughput).fold(0.0, f64::max);
    *all.iter().find(|(throughput, _)| *throughput >= most * 0.99).unwrap()
}

fn slots(slots: f64) -> Engine {
    Engine::new(slots, f64::MAX, 0.02, 0.0, 0.000_3, true, 1)
}

fn cache(cache: f64) -> Engine {
    Engine::new(f64::MAX, cache, 0.02, 0.0, 0.000_3, true, 2)
}

fn compute(per_request: f64) -> Engine {
    Engine::new(f64::MAX, f64::MAX, 0.02, per_request, 0.0, false, 3)
}

#[test]
fn the_learned_limit_is_as_good_as_the_best_fixed_one() {
    let engines: [(&str, &dyn Fn() -> Engine); 3] = [
        ("slots", &|| slots(48.0)),
        ("cache", &|| cache(8_000.0)),
        ("compute", &|| compute(0.000_5)),
    ];
    for (name, engine) in engines {
        let (most, limit) = best(engine);
        let mut run = Run::new();
        let mut auto = engine();
        run.run(&mut auto, 60);
        let (throughput, waiting) = run.run(&mut auto, 120);
        assert!(throughput > most * 0.85, "{name}: {throughput} of {most} tokens/s");
        assert!(
            waiting < f64::from(limit) * 0.15,
            "{name}: {waiting} wait, the best limit is {limit}"
        );
        let learned = f64::from(run.auto.limit());
        assert!(learned < f64::from(limit) * 1.5, "{name}: limit {learned}, {limit} is enough");
    }
}

#[test]
fn it_recovers_within_thirty_seconds_of_a_change_of_speed() {
    type Change = fn(&mut Engine);
    let changes: [(&str, Engine, Change); 4] = [
        ("slots halve", slots(48.0), |engine| engine.slots = 24.0),
        ("slots double", slots(24.0), |engine| engine.slots = 48.0),
        ("three times slower", slots(48.0), |engine| engine.floor = 0.06),
        ("compute doubles", compute(0.001), |engine| engine.per_request = 0.000_5),
    ];
    for (name, mut engine, change) in changes {
        let mut run = Run::new();
        run.run(&mut engine, 60);
        change(&mut engine);
        let (most, _) = best(|| Engine {
            running: Vec::new(),
            waiting: Vec::new(),
            tokens: 0.0,
            ..engine
        });
        run.run(&mut engine, 30);
        let (throughput, waiting) = run.run(&mut engine, 20);
        assert!(
            throughput > most * 0.85,
            "{name}: {throughput} of {most} tokens/s at {}",
            run.auto.limit()
        );
        assert!(waiting < 8.0, "{name}: {waiting} wait");
    }
}

#[test]
fn the_last_learned_limit_stands_when_the_signals_stop() {
    let mut run = Run::new();
    let mut engine = slots(48.0);
    run.run(&mut engine, 60);
    let learned = run.auto.limit();
    for second in 0..600 {
        let now = run.now + Duration::from_secs(second);
        assert_eq!(run.auto.step(now, None, &run.rules), learned);
    }
}

#[test]
fn a_limit_that_nobody_uses_does_not_grow() {
    let mut auto = AutoCapacity::new(&Rules::default());
    let before = auto.limit();
    let start = Instant::now();
    let idle = Seen {
        addresses: 1,
        in_flight: 2,
        waiting: Some(0.0),
        running: Some(2.0),
        token_time: None,
    };
    for second in 0..100 {
        auto.step(start + Duration::from_secs(second), Some(&idle), &Rules::default());
    }
    assert_eq!(auto.limit(), before);
}

#[test]
fn a_queue_cuts_and_the_cut_is_given_time_to_show() {
    let rules = Rules::default();
    let mut auto = AutoCapacity {
        limit: 100.0,
        ..AutoCapacity::new(&rules)
    };
    let start = Instant::now();
    let seen = |in_flight, waiting| Seen {
        addresses: 1,
        in_flight,
        waiting: Some(waiting),
        running: Some(50.0),
        token_time: None,
    };
    assert_eq!(auto.step(start, Some(&seen(100, 50.0)), &rules), 70, "at most three tenths at once");
    let second = |n: u64| start + Duration::from_secs(n);
    assert_eq!(auto.step(second(1), Some(&seen(90, 40.0)), &rules), 70, "still draining");
    assert_eq!(auto.step(second(2), Some(&seen(70, 20.0)), &rules), 52, "the excess");
    assert_eq!(auto.step(second(2), Some(&seen(52, 52.0)), &rules), 52, "once a period");
}

#[test]
fn a_queue_of_others_does_not_end_our_share_at_one_stroke() {
    let rules = Rules::default();
    let mut auto = AutoCapacity {
        limit: 100.0,
        ..AutoCapacity::new(&rules)
    };
    let flooded = Seen {
        addresses: 1,
        in_flight: 0,
        waiting: Some(500.0),
        running: Some(50.0),
        token_time: None,
    };
    assert_eq!(auto.step(Instant::now(), Some(&flooded), &rules), 70);
}

#[test]
fn an_engine_that_leaves_takes_its_part_of_the_limit_along() {
    let rules = Rules::default();
    let mut auto = AutoCapacity {
        limit: 80.0,
        addresses: 4,
        ..AutoCapacity::new(&rules)
    };
    let seen = Seen {
        addresses: 3,
        in_flight: 70,
        waiting: None,
        running: None,
        token_time: None,
    };
    assert_eq!(auto.step(Instant::now(), Some(&seen), &rules), 60);
}

#[test]
fn the_limit_stays_within_its_bounds() {
    let rules = Rules {
        max: 20,
        ..Rules::default()
    };
    let mut auto = AutoCapacity::new(&rules);
    let start = Instant::now();
    for second in 0..1000 {
        let all = auto.limit();
        let full = Seen {
            addresses: 2,
            in_flight: all,
            waiting: Some(0.0),
            running: Some(f64::from(all)),
            token_time: None,
        };
        auto.step(start + Duration::from_secs(second), Some(&full), &rules);
    }
    assert_eq!(auto.limit(), 40);
    for second in 1000..2000 {
        let flooded = Seen {
            addresses: 2,
            in_flight: auto.limit(),
            waiting: Some(1e9),
            running: Some(1.0),
            token_time: None,
        };
        auto.step(start + Duration::from_secs(second), Some(&flooded), &rules);
    }
    assert_eq!(auto.limit(), 2);
}
