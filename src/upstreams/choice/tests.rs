//! Policies by simulation: seeded, in pretend time.

use std::collections::HashMap;

use super::*;

/// Uniform numbers: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        below(self.next(), bound)
    }
}

fn seat(index: u16, weight: u64) -> Seat {
    Seat {
        id: EndpointId(u64::from(index)),
        seed: session_hash(format!("host-{index}").as_bytes()),
        load: Arc::default(),
        cap: None,
        weight: weight * 1000,
        penalty: 1,
        slot: index,
    }
}

fn tier(weights: &[u64]) -> Tier {
    Tier::new((0..).zip(weights).map(|(index, weight)| seat(index, *weight)).collect())
}

/// A pool of requests that stay for a while: what the choice sees in production.
struct Pool {
    tier: Tier,
    policy: Policy,
    /// How long a request stays at each seat, in arrivals.
    stay: Vec<u64>,
    leaving: HashMap<u64, Vec<usize>>,
    now: u64,
    in_flight: u32,
    served: Vec<u64>,
    random: Random,
}

impl Pool {
    fn new(policy: Policy, tier: Tier, stay: u64, seed: u64) -> Self {
        let seats = tier.seats().len();
        Self {
            policy,
            stay: vec![stay; seats],
            served: vec![0; seats],
            tier,
            leaving: HashMap::new(),
            now: 0,
            in_flight: 0,
            random: Random(seed),
        }
    }

    /// A request arrives; those whose time is over leave first.
    fn arrive(&mut self, hint: &Hint<'_>) -> usize {
        self.now += 1;
        for seat in self.leaving.remove(&self.now).unwrap_or_default() {
            self.tier.seats()[seat].load.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.in_flight -= 1;
        }
        let index = pick(&self.policy, &self.tier, hint, self.in_flight, self.random.next(), &[]).unwrap();
        self.tier.seats()[index].load.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_flight += 1;
        self.served[index] += 1;
        // Stays vary by half around the mean.
        let stay = self.stay[index] / 2 + self.random.below(self.stay[index]) + 1;
        self.leaving.entry(self.now + stay).or_default().push(index);
        index
    }

    fn load(&self, index: usize) -> u32 {
        self.tier.seats()[index].load.in_flight.load(Ordering::Relaxed)
    }
}

fn assert_by_weight(name: &str, weights: &[u64], served: &[u64]) {
    let (total, all): (u64, u64) = (weights.iter().sum(), served.iter().sum());
    for (weight, served) in weights.iter().zip(served) {
        let share = *served as f64 / all as f64 / (*weight as f64 / total as f64);
        assert!(
            (0.95..=1.05).contains(&share),
            "{name}: weight {weight} of {weights:?} got {share} of its share"
        );
    }
}

#[test]
fn load_follows_the_weights_within_five_percent() {
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 3, 4], &[100, 50, 25], &[8, 4, 2, 1]] {
        for stay in [1, 20, 400] {
            for (name, policy) in [
                ("least_request", Policy::LeastRequest),
                ("round_robin", Policy::RoundRobin(AtomicU64::new(0))),
            ] {
                let mut pool = Pool::new(policy, tier(weights), stay, 11);
                for _ in 0..40_000 {
                    pool.arrive(&Hint::default());
                }
                assert_by_weight(&format!("{name}, stay {stay}"), weights, &pool.served);
            }
        }
    }
}

#[test]
fn round_robin_gives_every_seat_its_share_at_any_time() {
    let weights = [5_u64, 3, 1];
    let tier = tier(&weights);
    let turn = AtomicU64::new(0);
    let mut served = [0_f64; 3];
    for turns in 1..=9_000_u32 {
        served[round_robin::pick(&tier, &turn, &[]).unwrap()] += 1.0;
        for (weight, served) in weights.iter().zip(served) {
            let due = f64::from(turns) * *weight as f64 / 9.0;
            assert!((served - due).abs() < 3.0, "weight {weight}: {served} of {due} after {turns}");
        }
    }
}

#[test]
fn least_request_leaves_a_seat_that_holds_its_requests_longer() {
    // Five times slower, nothing else known: by load alone it gets about a fifth of a share.
    let mut pool = Pool::new(Policy::LeastRequest, tier(&[1; 4]), 100, 5);
    pool.stay[0] = 500;
    for _ in 0..40_000 {
        pool.arrive(&Hint::default());
    }
    let share = pool.served[0] as f64 / 10_000.0;
    assert!(share < 0.35, "{share} of a fair share");
}

#[test]
fn a_penalised_seat_stays_out_of_the_99th_percentile_but_is_visited() {
    let mut seats: Vec<Seat> = (0..4).map(|index| seat(index, 1)).collect();
    // Five times slower, squared.
    seats[0].penalty = 25;
    let mut pool = Pool::new(Policy::LeastRequest, Tier::new(seats), 40, 6);
    pool.stay[0] = 200;
    for _ in 0..100_000 {
        pool.arrive(&Hint::default());
    }
    let share = pool.served[0] as f64 / 100_000.0;
    assert!((0.000_5..0.01).contains(&share), "{share} of all requests");
}

#[test]
fn load_that_an_engine_tells_of_counts_as_much_as_our_own() {
    let tier = tier(&[1, 1]);
    tier.seats()[0].load.extra.store(10, Ordering::Relaxed);
    tier.seats()[1].load.in_flight.store(5, Ordering::Relaxed);
    let mut random = Random(7);
    for _ in 0..100 {
        assert_eq!(pick(&Policy::LeastRequest, &tier, &Hint::default(), 5, random.next(), &[]), Ok(1));
    }
}

#[test]
fn two_choices_keep_the_fullest_near_the_mean() {
    let mut pool = Pool::new(Policy::LeastRequest, tier(&[1; 16]), 1600, 8);
    for _ in 0..20_000 {
        pool.arrive(&Hint::default());
    }
    let fullest = (0..16).map(|index| pool.load(index)).max().unwrap();
    let mean = f64::from(pool.in_flight) / 16.0;
    assert!(f64::from(fullest) < mean * 1.1, "{fullest} where the mean is {mean}");
}

#[test]
fn whatever_the_policy_the_tried_and_the_full_are_left_out() {
    let blocks = Blocks::of(&[&[7; 4096]], 0);
    let hint = Hint {
        session: Some(3),
        prefix: blocks.as_slice(),
    };
    let policies = [
        Policy::LeastRequest,
        Policy::RoundRobin(AtomicU64::new(0)),
        Policy::Session,
        Policy::Prefix(Prefixes::new(1024).unwrap()),
    ];
    for policy in policies {
        let mut seats: Vec<Seat> = (0..8).map(|index| seat(index, 1)).collect();
        for full in [2, 5] {
            seats[full].cap = Some((Arc::new(AtomicU32::new(4)), 4));
        }
        let tier = Tier::new(seats);
        let mut random = Random(9);
        let mut tried = Vec::new();
        for _ in 0..6 {
            let index = pick(&policy, &tier, &hint, 0, random.next(), &tried).unwrap();
            let id = tier.seats()[index].id;
            assert!(
                !tried.contains(&id) && ![2, 5].contains(&index),
                "{policy:?} chose {index} after {tried:?}"
            );
            tried.push(id);
        }
        assert_eq!(pick(&policy, &tier, &hint, 0, random.next(), &tried), Err(Nobody::Full));
        tried.extend([EndpointId(2), EndpointId(5)]);
        assert_eq!(pick(&policy, &tier, &hint, 0, random.next(), &tried), Err(Nobody::Tried));
        assert_eq!(pick(&policy, &Tier::default(), &hint, 0, random.next(), &[]), Err(Nobody::Tried));
    }
}

fn homes(tier: &Tier, sessions: u64) -> Vec<EndpointId> {
    let mut random = Random(10);
    let home = |random: &mut Random| {
        let hint = Hint {
            session: Some(random.next()),
            prefix: &[],
        };
        tier.seats()[pick(&Policy::Session, tier, &hint, 0, 0, &[]).unwrap()].id
    };
    (0..sessions).map(|_| home(&mut random)).collect()
}

#[test]
fn a_seat_that_leaves_moves_only_its_own_sessions_and_one_that_comes_takes_only_its_share() {
    for weights in [vec![1; 8], vec![1, 2, 3, 4, 5, 6, 7, 8]] {
        let all = homes(&tier(&weights), 20_000);
        let mut fewer: Vec<Seat> = tier(&weights).seats().to_vec();
        let gone = fewer.remove(3).id;
        for (before, after) in all.iter().zip(homes(&Tier::new(fewer), 20_000)) {
            assert_ne!(after, gone);
            assert!(*before == gone || *before == after, "{before:?} moved to {after:?}");
        }
        let total: u64 = weights.iter().sum();
        let mut more: Vec<Seat> = tier(&weights).seats().to_vec();
        more.push(seat(8, 4));
        let moved = all
            .iter()
            .zip(homes(&Tier::new(more), 20_000))
            .filter(|(before, after)| *before != after)
            .count();
        let share = 20_000.0 * 4.0 / (total + 4) as f64;
        assert!((moved as f64 / share - 1.0).abs() < 0.1, "{moved} moved, {share} were due");
    }
}

#[test]
fn sessions_are_spread_by_weight() {
    let weights = [1, 2, 5];
    let mut served = [0; 3];
    for home in homes(&tier(&weights), 60_000) {
        served[usize::try_from(home.0).unwrap()] += 1;
    }
    assert_by_weight("session", &weights, &served);
}

#[test]
fn a_busy_session_overflows_to_the_same_next_seat_and_comes_home() {
    let tier = tier(&[1; 4]);
    let hint = Hint {
        session: Some(42),
        prefix: &[],
    };
    let home = pick(&Policy::Session, &tier, &hint, 8, 0, &[]).unwrap();
    tier.seats()[home].load.in_flight.store(8, Ordering::Relaxed);
    let next = pick(&Policy::Session, &tier, &hint, 8, 0, &[]).unwrap();
    assert_ne!(home, next);
    assert_eq!(pick(&Policy::Session, &tier, &hint, 8, 77, &[]), Ok(next), "no chance in it");
    tier.seats()[home].load.in_flight.store(2, Ordering::Relaxed);
    assert_eq!(pick(&Policy::Session, &tier, &hint, 8, 0, &[]), Ok(home));
}

/// An engine's prefix cache: blocks by recency, a bounded number of them.
struct Cache {
    stamps: HashMap<u64, u64>,
    size: usize,
    clock: u64,
}

impl Cache {
    fn new(size: usize) -> Self {
        Self {
            stamps: HashMap::new(),
            size,
            clock: 0,
        }
    }

    /// How many leading blocks were there; all are afterwards.
    fn take(&mut self, blocks: &[u64]) -> usize {
        self.clock += 1;
        let hits = blocks.iter().take_while(|block| self.stamps.contains_key(block)).count();
        for block in blocks {
            self.stamps.insert(*block, self.clock);
        }
        if self.stamps.len() > self.size {
            let mut stamps: Vec<u64> = self.stamps.values().copied().collect();
            stamps.sort_unstable();
            let oldest = stamps[stamps.len() - self.size * 3 / 4];
            self.stamps.retain(|_, stamp| *stamp > oldest);
        }
        hits
    }
}

/// Prompts of conversations that grow turn by turn under a few shared system prompts of unequal popularity.
struct Conversations {
    open: Vec<Vec<u8>>,
    random: Random,
}

impl Conversations {
    fn new(count: usize, seed: u64) -> Self {
        let mut conversations = Self {
            open: Vec::new(),
            random: Random(seed),
        };
        for _ in 0..count {
            let fresh = conversations.fresh();
            conversations.open.push(fresh);
        }
        conversations
    }

    fn fresh(&mut self) -> Vec<u8> {
        let system = self.random.below(24).min(self.random.below(24));
        let mut random = Random(system);
        let mut text: Vec<u8> = (0..256).flat_map(|_| random.next().to_le_bytes()).collect();
        self.turn(&mut text);
        text
    }

    fn turn(&mut self, text: &mut Vec<u8>) {
        for _ in 0..40 + self.random.below(120) {
            text.extend(self.random.next().to_le_bytes());
        }
    }

    /// The next prompt, as the choice sees it.
    fn next(&mut self) -> Prompt {
        let count = self.open.len() as u64;
        let index = usize::try_from(self.random.below(count)).unwrap();
        let mut text = if self.random.below(8) == 0 {
            self.fresh()
        } else {
            self.open[index].clone()
        };
        self.turn(&mut text);
        self.open[index] = text.clone();
        Prompt {
            blocks: Blocks::of(&[&text], 0),
            // What names a conversation is its first turn, which follows the system prompt.
            session: session_hash(&text[..2048 + 320]),
        }
    }
}

struct Prompt {
    blocks: Blocks,
    session: u64,
}

const SEATS: usize = 8;
const CACHE: usize = 2_000;

/// The share of blocks found in the engines' caches, and the greatest mean load over the mean.
fn cache_hits(policy: Policy, prompts: &[Prompt]) -> (f64, f64) {
    let by_session = matches!(policy, Policy::Session);
    let mut pool = Pool::new(policy, tier(&[1; SEATS]), 160, 1);
    let mut caches: Vec<Cache> = (0..SEATS).map(|_| Cache::new(CACHE)).collect();
    let (mut hits, mut blocks_all) = (0, 0);
    let mut loads = [0_f64; SEATS];
    for prompt in prompts {
        let blocks = prompt.blocks.as_slice();
        let index = pool.arrive(&Hint {
            session: by_session.then_some(prompt.session),
            prefix: blocks,
        });
        hits += caches[index].take(blocks);
        blocks_all += blocks.len();
        for (load, seat) in loads.iter_mut().zip(0..) {
            *load += f64::from(pool.load(seat));
        }
    }
    let mean = loads.iter().sum::<f64>() / SEATS as f64;
    (hits as f64 / blocks_all as f64, loads.iter().copied().fold(0.0, f64::max) / mean)
}

/// One engine with all the caches' room: no placement finds more.
fn oracle(prompts: &[Prompt]) -> f64 {
    let mut cache = Cache::new(SEATS * CACHE);
    let all: usize = prompts.iter().map(|prompt| prompt.blocks.as_slice().len()).sum();
    let hits: usize = prompts.iter().map(|prompt| cache.take(prompt.blocks.as_slice())).sum();
    hits as f64 / all as f64
}

#[test]
fn prefix_and_session_find_nine_tenths_of_what_an_oracle_finds_and_overload_nobody() {
    for seed in 1..=3 {
        let mut conversations = Conversations::new(150, seed);
        let prompts: Vec<Prompt> = (0..8_000).map(|_| conversations.next()).collect();
        let most = oracle(&prompts);
        let (spread, _) = cache_hits(Policy::LeastRequest, &prompts);
        assert!(spread < most * 0.75, "seed {seed}: the simulation is too easy: {spread} of {most}");
        for (name, policy) in [
            ("prefix", Policy::Prefix(Prefixes::new(1 << 16).unwrap())),
            ("session", Policy::Session),
        ] {
            let (found, fullest) = cache_hits(policy, &prompts);
            assert!(found >= most * 0.9, "{name}, seed {seed}: {found} of {most}");
            assert!(fullest <= 1.25, "{name}, seed {seed}: one seat carries {fullest} of the mean");
        }
    }
}

#[test]
fn one_prompt_that_everybody_sends_does_not_drown_its_seat() {
    let blocks = Blocks::of(&[&[1; 8192]], 0);
    let mut pool = Pool::new(Policy::Prefix(Prefixes::new(4096).unwrap()), tier(&[1; 8]), 400, 12);
    for _ in 0..5_000 {
        pool.arrive(&Hint {
            session: None,
            prefix: blocks.as_slice(),
        });
        let bound = (f64::from(pool.in_flight) * 1.25 / 8.0).ceil() + 1.0;
        for index in 0..8 {
            assert!(
                f64::from(pool.load(index)) <= bound.max(2.0) * 1.1,
                "{} at {index} of {}",
                pool.load(index),
                pool.in_flight
            );
        }
    }
}

#[test]
fn blocks_cover_what_precedes_them_and_parts_do_not_run_into_each_other() {
    let text = vec![b'x'; 100_000];
    let whole = Blocks::of(&[&text], 0);
    let mut changed = text.clone();
    changed[600] = b'y';
    let other = Blocks::of(&[&changed], 0);
    assert_eq!(whole.as_slice()[0], other.as_slice()[0]);
    assert!(whole.as_slice()[1..].iter().zip(&other.as_slice()[1..]).all(|(a, b)| a != b));
    assert_eq!(
        whole.as_slice()[..3],
        Blocks::of(&[&text[..1536]], 0).as_slice()[..3],
        "a longer prompt begins alike"
    );
    assert!(Blocks::of(&[&text[..511]], 0).as_slice().is_empty());
    assert_ne!(whole.as_slice()[0], Blocks::of(&[&text], 1).as_slice()[0]);
    let split = |at: usize| Blocks::of(&[&text[..at], &text[at..2048]], 0);
    assert_ne!(split(700).as_slice().last(), split(800).as_slice().last());
    assert_eq!(
        Blocks::of(&[b"system", &[]], 0).as_slice().len(),
        1,
        "a short system prompt is a block of its own"
    );
    let huge = vec![0; 2 * Blocks::READ_MAX];
    assert_eq!(Blocks::of(&[&huge], 0).as_slice().len(), Blocks::MAX);
    assert_eq!(
        Blocks::of(&[&huge], 0).as_slice(),
        Blocks::of(&[&huge[..Blocks::READ_MAX]], 0).as_slice()
    );
}

#[test]
fn a_prefix_table_needs_a_set() {
    assert!(Prefixes::new(7).is_err());
    assert!(Prefixes::new(8).is_ok());
}
