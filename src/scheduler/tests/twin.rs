//! The naive twin: the same rules, written again without heaps, lists, masks or counters. Everything is a scan over all
//! requests, tags are floating-point token units by weight, and every decision of the scheduler is checked, not repeated:
//! where tags are equal the twin follows.
#![expect(clippy::cast_possible_truncation, reason = "token counts far below the limits of a float")]

use std::collections::{BTreeMap, BTreeSet};

/// Tags are compared to this precision, in units by weight; requests of tenants of weight 100 are 1 to 30 apart. The
/// scheduler counts 65 536 steps per unit, and a weight that falls from 300 to 10 makes 30 of one.
pub(super) const NEAR: f64 = 0.1;
const BEGIN: f64 = 65_536.0;
const BURST: f64 = 1000.0;
const TICK_MS: u64 = 50;

/// Slots of one capped model, or `None`: of all others.
pub(super) type PoolKey = Option<usize>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) start: f64,
    pub(super) credit: f64,
}

impl Tag {
    const fn at(start: f64) -> Self {
        Self { start, credit: 0.0 }
    }

    fn charge(&mut self, distance: f64) {
        let paid = self.credit.min(distance);
        self.credit -= paid;
        self.start += distance - paid;
    }

    fn activate(&mut self, clock: f64, burst: f64) {
        if self.start < clock - burst {
            *self = Self::at(clock - burst);
        } else {
            self.credit = self.credit.min((self.start - clock).max(0.0));
        }
    }

    fn rescale(&mut self, clock: f64, from: f64, to: f64) {
        self.start = (clock + (self.start - clock) * from / to).max(0.0);
        self.credit *= from / to;
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) v: f64,
    floor: f64,
    epoch: u64,
}

impl Clock {
    const NEW: Self = Self {
        v: BEGIN,
        floor: BEGIN,
        epoch: 0,
    };

    fn follow(&mut self, outer: &Self) {
        if self.epoch != outer.epoch {
            (self.floor, self.epoch) = (self.v, outer.epoch);
        }
    }

    fn not_scarce(&mut self) {
        self.floor = self.v;
        self.epoch += 1;
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) weight: f64,
    pub(super) tag: Tag,
    pub(super) clock: Clock,
}

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) group: usize,
    pub(super) weight: f64,
    pub(super) tag: Tag,
    pub(super) cap: Option<u32>,
    pub(super) max_queued: Option<u32>,
    pub(super) gone: bool,
    pub(super) served: i128,
    means: BTreeMap<usize, f32>,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) cap: Option<u32>,
    pub(super) percent: u32,
    mean: f32,
}

impl Model {
    pub(super) const fn new() -> Self {
        Self {
            cap: None,
            percent: 100,
            mean: 256.0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) tag: Tag,
    pub(super) clock: Clock,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tag: Tag,
    overdue_since: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Running,
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) owner: u32,
    pub(super) tenant: usize,
    pub(super) key: Option<usize>,
    /// Model 0 is the one that stands for all unknown.
    pub(super) model: usize,
    pub(super) input: u64,
    pub(super) output_max: Option<u64>,
    pub(super) body: u64,
    pub(super) state: State,
    pub(super) since_ms: u64,
    pub(super) due_tick: u64,
    pub(super) charged: i128,
    pub(super) covered: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Ready {
    groups: BTreeSet<usize>,
    tenants: BTreeSet<usize>,
    branches: BTreeSet<(usize, PoolKey)>,
    lanes: BTreeSet<(usize, PoolKey)>,
}

pub(super) struct Bounds {
    pub(super) max_queued: u32,
    pub(super) max_queued_bytes: u64,
    pub(super) overload_wait_ms: u64,
    pub(super) overload_interval_ms: u64,
}

pub(super) struct Twin {
    pub(super) bounds: Bounds,
    pub(super) max: u32,
    pub(super) now_ms: u64,
    pub(super) node: Clock,
    pub(super) groups: BTreeMap<usize, Group>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) key_caps: Vec<Option<u32>>,
    pub(super) models: Vec<Model>,
    pub(super) pools: BTreeMap<PoolKey, Clock>,
    pub(super) branches: BTreeMap<(usize, PoolKey), Branch>,
    pub(super) lanes: BTreeMap<(usize, PoolKey), Lane>,
    /// In the order they came.
    pub(super) asked: Vec<Asked>,
    ready: Ready,
}

pub(super) type Check = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if $holds {
        } else {
            return Err(format!($($why)+));
        }
    };
}
pub(super) use ensure;

impl Twin {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            max: 0,
            now_ms: 0,
            node: Clock::NEW,
            groups: BTreeMap::new(),
            tenants: Vec::new(),
            key_caps: Vec::new(),
            models: vec![Model::new()],
            pools: BTreeMap::from([(None, Clock::NEW)]),
            branches: BTreeMap::new(),
            lanes: BTreeMap::new(),
            asked: Vec::new(),
            ready: Ready::default(),
        }
    }

    pub(super) fn count(&self, state: State, chosen: impl Fn(&Asked) -> bool) -> u32 {
        let count = self.asked.iter().filter(|asked| asked.state == state && chosen(asked)).count();
        u32::try_from(count).unwrap()
    }

    pub(super) fn pool(&self, model: usize) -> PoolKey {
        self.models[model].cap.map(|_| model)
    }

    fn pool_has_room(&self, pool: PoolKey) -> bool {
        let running = self.count(State::Running, |asked| self.pool(asked.model) == pool);
        pool.is_none_or(|model| running < self.models[model].cap.unwrap_or(u32::MAX))
    }

    pub(super) fn has_room(&self) -> bool {
        self.count(State::Running, |_| true) < self.max
    }

    fn is_open(&self, asked: &Asked) -> bool {
        let of_tenant = self.count(State::Running, |other| other.tenant == asked.tenant);
        let of_key = self.count(State::Running, |other| asked.key.is_some() && other.key == asked.key);
        let key_cap = asked.key.and_then(|key| self.key_caps[key]);
        self.tenants[asked.tenant].cap.is_none_or(|cap| of_tenant < cap) && key_cap.is_none_or(|cap| of_key < cap)
    }

    /// Waiters that could run if node and pool had room, in the order they came.
    fn ready_waiters(&self) -> Vec<&Asked> {
        let waiting = self.asked.iter().filter(|asked| asked.state == State::Queued);
        waiting.filter(|asked| self.is_open(asked)).collect()
    }

    pub(super) fn eligible(&self) -> BTreeSet<PoolKey> {
        let pools: BTreeSet<PoolKey> = self.ready_waiters().iter().map(|asked| self.pool(asked.model)).collect();
        pools.into_iter().filter(|pool| self.pool_has_room(*pool)).collect()
    }

    fn burst(&self, tenant: usize) -> f64 {
        BURST / self.tenants[tenant].weight
    }

    fn survey(&self, hidden: impl Fn(&Asked) -> bool) -> Ready {
        let mut ready = Ready::default();
        for asked in self.ready_waiters().into_iter().filter(|asked| !hidden(asked)) {
            let (pool, group) = (self.pool(asked.model), self.tenants[asked.tenant].group);
            ready.groups.insert(group);
            ready.tenants.insert(asked.tenant);
            ready.branches.insert((group, pool));
            ready.lanes.insert((asked.tenant, pool));
        }
        ready
    }

    /// R3: whoever is ready now and was not before comes back from idleness.
    pub(super) fn refresh(&mut self, hidden: impl Fn(&Asked) -> bool) {
        let now = self.survey(hidden);
        let before = std::mem::replace(&mut self.ready, now.clone());
        for group in now.groups.difference(&before.groups) {
            self.groups.get_mut(group).unwrap().tag.activate(self.node.v, 0.0);
        }
        for &tenant in now.tenants.difference(&before.tenants) {
            let clock = self.groups[&self.tenants[tenant].group].clock.v;
            let burst = self.burst(tenant);
            self.tenants[tenant].tag.activate(clock, burst);
        }
        for branch in now.branches.difference(&before.branches).filter(|branch| branch.1.is_some()) {
            self.branches.get_mut(branch).unwrap().tag.activate(self.pools[&branch.1].v, 0.0);
        }
        for lane in now.lanes.difference(&before.lanes).filter(|lane| lane.1.is_some()) {
            let clock = self.branches[&(self.tenants[lane.0].group, lane.1)].clock.v;
            let burst = self.burst(lane.0);
            self.lanes.get_mut(lane).unwrap().tag.activate(clock, burst);
        }
    }

    pub(super) fn ensure_lane(&mut self, tenant: usize, pool: PoolKey) {
        let group = self.tenants[tenant].group;
        let pool_clock = self.pools[&pool].v;
        let branch = self.branches.entry((group, pool)).or_insert(Branch {
            tag: Tag::at(pool_clock),
            clock: Clock::NEW,
        });
        let clock = branch.clock.v;
        self.lanes.entry((tenant, pool)).or_insert(Lane {
            tag: Tag::at(clock),
            overdue_since: None,
        });
    }

    /// Time passes. Returns whom it costs their place.
    pub(super) fn advance(&mut self, now_ms: u64) -> BTreeSet<u32> {
        self.now_ms = self.now_ms.max(now_ms);
        let tick = self.now_ms / TICK_MS;
        let due = |asked: &Asked| asked.state == State::Queued && asked.due_tick <= tick;
        let gone = self.asked.iter().filter(|asked| due(asked)).map(|asked| asked.owner).collect();
        self.asked.retain(|asked| !due(asked));
        self.refresh(|_| false);
        gone
    }

    /// A newcomer that is sure of a slot?
    pub(super) fn runs_at_once(&self, asked: &Asked) -> bool {
        self.has_room() && self.pool_has_room(self.pool(asked.model)) && self.is_open(asked)
    }

    /// R12.
    pub(super) fn has_place(&self, asked: &Asked) -> bool {
        let queued = |chosen: &dyn Fn(&Asked) -> bool| self.count(State::Queued, chosen);
        let bytes = |chosen: &dyn Fn(&Asked) -> bool| -> u64 {
            let waiting = self.asked.iter().filter(|other| other.state == State::Queued && chosen(other));
            waiting.map(|other| other.body).sum()
        };
        let tenant = &self.tenants[asked.tenant];
        let own = queued(&|other| other.tenant == asked.tenant);
        let of_group = queued(&|other| self.tenants[other.tenant].group == tenant.group);
        let free = self.bounds.max_queued.saturating_sub(queued(&|_| true));
        let free_bytes = self.bounds.max_queued_bytes.saturating_sub(bytes(&|_| true));
        tenant.max_queued.is_none_or(|max| own < max)
            && own < free
            && of_group < 8 * free
            && asked.body <= free_bytes
            && bytes(&|other| other.tenant == asked.tenant) < free_bytes
            && bytes(&|other| self.tenants[other.tenant].group == tenant.group) < 8 * free_bytes
    }

    pub(super) fn new_request(&self, owner: u32, tenant: usize, patience_ms: u64) -> Asked {
        Asked {
            owner,
            tenant,
            key: None,
            model: 0,
            input: 0,
            output_max: None,
            body: 0,
            state: State::Queued,
            since_ms: self.now_ms,
            due_tick: (self.now_ms + patience_ms).div_ceil(TICK_MS),
            charged: 0,
            covered: 0,
        }
    }

    pub(super) fn enqueue(&mut self, asked: Asked) {
        self.ensure_lane(asked.tenant, self.pool(asked.model));
        self.asked.push(asked);
        self.refresh(|_| false);
    }

    /// R2.
    pub(super) fn run_at_once(&mut self, mut asked: Asked) {
        let pool = self.pool(asked.model);
        if pool.is_some() {
            self.ensure_lane(asked.tenant, pool);
        }
        // As if it were ready for a moment.
        asked.state = State::Queued;
        let owner = asked.owner;
        self.asked.push(asked);
        self.refresh(|_| false);
        self.start(owner);
        if self.has_room() {
            self.node.not_scarce();
        }
    }

    /// R4, I4, I6, I7: the scheduler has granted `owner`. Was that right?
    pub(super) fn granted(&mut self, owner: u32) -> Check {
        let chosen = self
            .asked
            .iter()
            .find(|asked| asked.owner == owner && asked.state == State::Queued)
            .cloned();
        let Some(chosen) = chosen else {
            return Err(format!("I7: {owner} was granted and does not wait"));
        };
        ensure!(self.has_room(), "I1: {owner} was granted above the maximum");
        let eligible = self.eligible();
        let pool = self.pool(chosen.model);
        ensure!(
            eligible.contains(&pool),
            "I1: {owner} was granted in pool {pool:?}, eligible are {eligible:?}"
        );
        ensure!(self.is_open(&chosen), "I1: {owner} was granted above its tenant's or key's cap");
        let ready: Vec<Asked> = self
            .ready_waiters()
            .into_iter()
            .filter(|asked| eligible.contains(&self.pool(asked.model)))
            .cloned()
            .collect();
        let group = self.tenants[chosen.tenant].group;

        if eligible.len() == 1 && pool.is_some() {
            let own = self.branches[&(group, pool)].tag.start;
            let least = ready
                .iter()
                .map(|asked| self.branches[&(self.tenants[asked.tenant].group, pool)].tag.start);
            let least = least.fold(f64::INFINITY, f64::min);
            ensure!(own <= least + NEAR, "I4: branch of {owner} has tag {own}, another has {least}");
            let siblings = ready.iter().filter(|asked| self.tenants[asked.tenant].group == group);
            let least = siblings
                .map(|asked| self.lanes[&(asked.tenant, pool)].tag.start)
                .fold(f64::INFINITY, f64::min);
            let own = self.lanes[&(chosen.tenant, pool)].tag.start;
            ensure!(own <= least + NEAR, "I4: lane of {owner} has tag {own}, another has {least}");
        } else {
            let tag = |asked: &Asked| self.groups[&self.tenants[asked.tenant].group].tag.start;
            let least = ready.iter().map(tag).fold(f64::INFINITY, f64::min);
            let own = tag(&chosen);
            ensure!(own <= least + NEAR, "I4: group of {owner} has tag {own}, another has {least}");
            let siblings = ready.iter().filter(|asked| self.tenants[asked.tenant].group == group);
            let least = siblings
                .map(|asked| self.tenants[asked.tenant].tag.start)
                .fold(f64::INFINITY, f64::min);
            let own = self.tenants[chosen.tenant].tag.start;
            ensure!(own <= least + NEAR, "I4: tenant of {owner} has tag {own}, another has {least}");
        }
        self.check_order_in_lane(&chosen, &ready)?;
        self.start(owner);
        Ok(())
    }

    /// R4(d) and R13.
    fn check_order_in_lane(&mut self, chosen: &Asked, ready: &[Asked]) -> Check {
        let pool = self.pool(chosen.model);
        let in_lane: Vec<&Asked> = ready
            .iter()
            .filter(|asked| asked.tenant == chosen.tenant && self.pool(asked.model) == pool)
            .collect();
        let (oldest, newest) = (in_lane[0].owner, in_lane[in_lane.len() - 1].owner);
        let waited = self.now_ms - in_lane[0].since_ms;
        let lane = self.lanes.get_mut(&(chosen.tenant, pool)).unwrap();
        let mut expected = oldest;
        if waited < self.bounds.overload_wait_ms {
            lane.overdue_since = None;
        } else {
            let since = *lane.overdue_since.get_or_insert(self.now_ms);
            if self.now_ms - since >= self.bounds.overload_interval_ms {
                expected = newest;
            }
        }
        ensure!(
            chosen.owner == expected,
            "I6: {} was granted, it was {expected}'s turn in the lane",
            chosen.owner
        );
        Ok(())
    }

    /// After the grants of a call.
    pub(super) fn end_pass(&mut self) {
        if self.has_room() {
            self.node.not_scarce();
        }
    }

    fn start(&mut self, owner: u32) {
        let at = self.asked.iter().position(|asked| asked.owner == owner).unwrap();
        let Asked {
            tenant,
            model,
            input,
            output_max,
            ..
        } = self.asked[at];
        let pool = self.pool(model);
        self.advance_clocks(tenant, pool);
        let mean = self.tenants[tenant].means.get(&model).copied().unwrap_or(self.models[model].mean);
        let output = ((mean * 0.5).floor() as u64).min(output_max.unwrap_or(u64::MAX));
        let estimate = self.price(model, input, output);
        self.pay(tenant, pool, estimate);
        let asked = &mut self.asked[at];
        asked.state = State::Running;
        asked.charged = estimate;
        asked.covered = output;
        asked.since_ms = self.now_ms;
        if self.pool_has_room(pool) {
            self.pools.get_mut(&pool).unwrap().not_scarce();
        }
        self.refresh(|_| false);
    }

    fn advance_clocks(&mut self, tenant: usize, pool: PoolKey) {
        let burst = self.burst(tenant);
        let group_key = self.tenants[tenant].group;
        let group = self.groups.get_mut(&group_key).unwrap();
        group.clock.follow(&self.node);
        group.tag.start = group.tag.start.max(self.node.floor);
        self.node.v = self.node.v.max(group.tag.start);
        let tag = &mut self.tenants[tenant].tag;
        tag.start = tag.start.max(group.clock.floor - burst);
        group.clock.v = group.clock.v.max(tag.start);
        if pool.is_none() {
            return;
        }
        let branch = self.branches.get_mut(&(group_key, pool)).unwrap();
        let clock = self.pools.get_mut(&pool).unwrap();
        branch.clock.follow(clock);
        branch.tag.start = branch.tag.start.max(clock.floor);
        clock.v = clock.v.max(branch.tag.start);
        let lane = self.lanes.get_mut(&(tenant, pool)).unwrap();
        lane.tag.start = lane.tag.start.max(branch.clock.floor - burst);
        branch.clock.v = branch.clock.v.max(lane.tag.start);
    }

    /// In 1/1024 units, like the scheduler's, so that sums can be compared exactly (I10).
    fn price(&self, model: usize, input: u64, output: u64) -> i128 {
        let grains = (256 * i128::from(input) + 1024 * i128::from(output)).min(1 << 50);
        (grains * i128::from(self.models[model].percent) / 100).clamp(1024, 1 << 50)
    }

    /// A negative cost is a refund.
    fn pay(&mut self, tenant: usize, pool: PoolKey, cost: i128) {
        let units = cost as f64 / 1024.0;
        let group = self.tenants[tenant].group;
        self.tenants[tenant].served += cost;
        let (tenant_weight, group_weight) = (self.tenants[tenant].weight, self.groups[&group].weight);
        let apply = |tag: &mut Tag, weight: f64| {
            if units >= 0.0 {
                tag.charge(units / weight);
            } else {
                tag.credit -= units / weight;
            }
        };
        apply(&mut self.tenants[tenant].tag, tenant_weight);
        apply(&mut self.groups.get_mut(&group).unwrap().tag, group_weight);
        if pool.is_some() && self.lanes.contains_key(&(tenant, pool)) {
            apply(&mut self.lanes.get_mut(&(tenant, pool)).unwrap().tag, tenant_weight);
            apply(&mut self.branches.get_mut(&(group, pool)).unwrap().tag, group_weight);
        }
    }

    fn correct(&mut self, at: usize, price: i128) {
        let Asked {
            tenant, model, charged, ..
        } = self.asked[at];
        if price != charged {
            self.pay(tenant, self.pool(model), price - charged);
        }
        self.asked[at].charged = price;
    }

    pub(super) fn progress(&mut self, owner: u32, output: u64) {
        let at = self.asked.iter().position(|asked| asked.owner == owner).unwrap();
        let Asked {
            model,
            input,
            covered,
            charged,
            ..
        } = self.asked[at];
        if output >= covered + 16 {
            let price = self.price(model, input, output).max(charged);
            self.correct(at, price);
            self.asked[at].covered = output;
        }
    }

    /// `None` is unused; else input (if reported) and output, and whether the output is learned.
    pub(super) fn leave(&mut self, owner: u32, used: Option<(Option<u64>, u64, bool)>) {
        let at = self.asked.iter().position(|asked| asked.owner == owner).unwrap();
        let Asked { tenant, model, input, .. } = self.asked[at];
        let price = used.map_or(0, |(reported, output, _)| self.price(model, reported.unwrap_or(input), output));
        self.correct(at, price);
        if let Some((_, output, true)) = used {
            let learn = |mean: &mut f32| *mean += 0.1 * (output as f32 - *mean);
            let prior = self.models[model].mean;
            learn(self.tenants[tenant].means.entry(model).or_insert(prior));
            learn(&mut self.models[model].mean);
        }
        self.asked.remove(at);
        self.refresh(|_| false);
    }

    pub(super) fn cancel(&mut self, owner: u32) {
        self.asked.retain(|asked| asked.owner != owner);
        self.refresh(|_| false);
    }

    pub(super) fn add_group(&mut self, key: usize, weight: u32) {
        let group = Group {
            weight: f64::from(weight),
            tag: Tag::at(self.node.v),
            clock: Clock::NEW,
        };
        self.groups.insert(key, group);
    }

    pub(super) fn add_tenant(&mut self, group: usize, weight: u32) {
        self.tenants.push(Tenant {
            group,
            weight: f64::from(weight),
            tag: Tag::at(self.groups[&group].clock.v),
            cap: None,
            max_queued: None,
            gone: false,
            served: 0,
            means: BTreeMap::new(),
        });
    }

    pub(super) fn set_group_weight(&mut self, key: usize, weight: u32) {
        let weight = f64::from(weight);
        let group = self.groups.get_mut(&key).unwrap();
        let before = std::mem::replace(&mut group.weight, weight);
        group.tag.rescale(self.node.v, before, weight);
        for ((_, pool), branch) in self.branches.iter_mut().filter(|((group, _), _)| *group == key) {
            branch.tag.rescale(self.pools[pool].v, before, weight);
        }
    }

    pub(super) fn set_tenant_weight(&mut self, tenant: usize, weight: u32) {
        let weight = f64::from(weight);
        let before = std::mem::replace(&mut self.tenants[tenant].weight, weight);
        let group = self.tenants[tenant].group;
        let clock = self.groups[&group].clock.v;
        self.tenants[tenant].tag.rescale(clock, before, weight);
        for ((_, pool), lane) in self.lanes.iter_mut().filter(|((its, _), _)| *its == tenant) {
            lane.tag.rescale(self.branches[&(group, *pool)].clock.v, before, weight);
        }
    }

    /// R9.
    pub(super) fn move_tenant(&mut self, tenant: usize, to: usize) {
        self.refresh(|asked| asked.tenant == tenant);
        self.tenants[tenant].group = to;
        self.tenants[tenant].tag = Tag::at(self.groups[&to].clock.v);
        let pools: Vec<PoolKey> = self.lanes.keys().filter(|lane| lane.0 == tenant).map(|lane| lane.1).collect();
        for pool in pools {
            self.ensure_lane(tenant, pool);
            let clock = self.branches[&(to, pool)].clock.v;
            self.lanes.get_mut(&(tenant, pool)).unwrap().tag = Tag::at(clock);
        }
        self.refresh(|_| false);
    }

    /// A cap that comes or goes moves the model's requests to another pool.
    pub(super) fn set_model(&mut self, model: usize, percent: u32, cap: Option<u32>) {
        self.models[model].percent = percent;
        let before = self.models[model].cap;
        if before.is_some() == cap.is_some() {
            self.models[model].cap = cap;
            return;
        }
        let keys: BTreeMap<usize, PoolKey> = (0..self.models.len()).map(|other| (other, self.pool(other))).collect();
        self.refresh(|asked| keys[&asked.model].is_none() || keys[&asked.model] == Some(model));
        self.models[model].cap = cap;
        if cap.is_some() {
            self.pools.insert(Some(model), Clock::NEW);
        }
        let moved: Vec<usize> = self
            .asked
            .iter()
            .filter(|asked| asked.state == State::Queued)
            .map(|asked| asked.tenant)
            .collect();
        for tenant in moved {
            let pools: Vec<PoolKey> = self
                .asked
                .iter()
                .filter(|asked| asked.tenant == tenant && asked.state == State::Queued)
                .map(|asked| self.pool(asked.model))
                .collect();
            for pool in pools {
                self.ensure_lane(tenant, pool);
            }
        }
        self.refresh(|_| false);
        if cap.is_none() {
            self.forget_pool(model);
        }
    }

    pub(super) fn forget_pool(&mut self, model: usize) {
        self.pools.remove(&Some(model));
        self.branches.retain(|(_, pool), _| *pool != Some(model));
        self.lanes.retain(|(_, pool), _| *pool != Some(model));
    }

    /// I3.
    pub(super) fn check_work_conservation(&self) -> Check {
        let eligible = self.eligible();
        ensure!(
            !self.has_room() || eligible.is_empty(),
            "I3: a free slot and waiters in {eligible:?}"
        );
        Ok(())
    }
}

pub(super) fn near(real: u64, twin: f64) -> bool {
    (real as f64 / 65_536.0 - twin).abs() < NEAR
}
