//! I1 to I7 and I10 under random acts of clients and operators: the scheduler beside its twin.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::twin::{Asked, Bounds, Check, PoolKey, State, Twin, ensure, near};
use super::*;
use crate::id::ModelId;
use crate::scheduler::arena::Ix;
use crate::scheduler::{Entered, KeyIx, Leave, ModelIx, PoolIx, Refused, Request, TicketIx};

/// What happens. Numbers choose among what there is, modulo how much there is.
#[derive(Debug, Clone)]
enum Act {
    Enter {
        tenant: usize,
        key: Option<usize>,
        model: Option<usize>,
        input: u64,
        output_max: Option<u64>,
        patience_ms: u64,
    },
    Settle {
        nth: usize,
        input: u64,
        output: u64,
    },
    Abort {
        nth: usize,
        output: u64,
    },
    Unused {
        nth: usize,
    },
    Progress {
        nth: usize,
        output: u64,
    },
    Cancel {
        nth: usize,
    },
    /// A second cancel and a second end of what has ended.
    Stale {
        nth: usize,
    },
    Pass {
        ms: u64,
    },
    SetMax {
        slots: u32,
    },
    TenantWeight {
        tenant: usize,
        weight: u32,
    },
    GroupWeight {
        group: usize,
        weight: u32,
    },
    TenantCap {
        tenant: usize,
        cap: Option<u32>,
        max_queued: Option<u32>,
    },
    KeyCap {
        key: usize,
        cap: Option<u32>,
    },
    SetModel {
        model: usize,
        percent: u32,
        cap: Option<u32>,
    },
    Move {
        tenant: usize,
        group: usize,
    },
    ReplaceTenant {
        tenant: usize,
        weight: u32,
    },
    ReplaceKey {
        key: usize,
        cap: Option<u32>,
    },
    ReplaceModel {
        model: usize,
        cap: Option<u32>,
    },
    ReplaceGroup {
        group: usize,
        weight: u32,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let nth = 0..64_usize;
    let weight = 10..300_u32;
    let cap = prop_oneof![Just(None), (0..4_u32).prop_map(Some)];
    let enter = (
        nth.clone(),
        proptest::option::of(nth.clone()),
        proptest::option::of(nth.clone()),
        0..2000_u64,
        proptest::option::of(0..300_u64),
        prop_oneof![9 => 1000..60_000_u64, 1 => 0..200_u64],
    );
    let enter = enter.prop_map(|(tenant, key, model, input, output_max, patience_ms)| Act::Enter {
        tenant,
        key,
        model,
        input,
        output_max,
        patience_ms,
    });
    prop_oneof![
        40 => enter,
        25 => (nth.clone(), 0..2000_u64, 0..3000_u64).prop_map(|(nth, input, output)| Act::Settle { nth, input, output }),
        4 => (nth.clone(), 0..3000_u64).prop_map(|(nth, output)| Act::Abort { nth, output }),
        3 => nth.clone().prop_map(|nth| Act::Unused { nth }),
        6 => (nth.clone(), 0..3000_u64).prop_map(|(nth, output)| Act::Progress { nth, output }),
        6 => nth.clone().prop_map(|nth| Act::Cancel { nth }),
        1 => nth.clone().prop_map(|nth| Act::Stale { nth }),
        8 => prop_oneof![4 => 0..400_u64, 1 => 0..8000_u64].prop_map(|ms| Act::Pass { ms }),
        2 => (0..7_u32).prop_map(|slots| Act::SetMax { slots }),
        4 => (nth.clone(), weight.clone()).prop_map(|(tenant, weight)| Act::TenantWeight { tenant, weight }),
        3 => (nth.clone(), weight.clone()).prop_map(|(group, weight)| Act::GroupWeight { group, weight }),
        2 => (nth.clone(), cap.clone(), proptest::option::of(0..6_u32))
            .prop_map(|(tenant, cap, max_queued)| Act::TenantCap { tenant, cap, max_queued }),
        2 => (nth.clone(), cap.clone()).prop_map(|(key, cap)| Act::KeyCap { key, cap }),
        2 => (nth.clone(), prop_oneof![Just(100_u32), 1..400_u32], cap.clone())
            .prop_map(|(model, percent, cap)| Act::SetModel { model, percent, cap }),
        2 => (nth.clone(), nth.clone()).prop_map(|(tenant, group)| Act::Move { tenant, group }),
        1 => (nth.clone(), weight.clone()).prop_map(|(tenant, weight)| Act::ReplaceTenant { tenant, weight }),
        1 => (nth.clone(), cap.clone()).prop_map(|(key, cap)| Act::ReplaceKey { key, cap }),
        1 => (nth.clone(), cap).prop_map(|(model, cap)| Act::ReplaceModel { model, cap }),
        1 => (nth, weight).prop_map(|(group, weight)| Act::ReplaceGroup { group, weight }),
    ]
}

/// The two side by side. Index by index, the lists name what the twin knows by the same number.
struct Pair {
    real: Scheduler,
    twin: Twin,
    groups: Vec<Handle<GroupIx>>,
    tenants: Vec<Handle<TenantIx>>,
    terms: Vec<TenantTerms>,
    keys: Vec<(usize, Handle<KeyIx>)>,
    /// By the twin's number less one: its model 0 stands for the unknown.
    models: Vec<Handle<ModelIx>>,
    live_groups: Vec<usize>,
    live_tenants: Vec<usize>,
    live_keys: Vec<usize>,
    live_models: Vec<usize>,
    /// Every ticket ever, by owner.
    tickets: BTreeMap<u32, Handle<TicketIx>>,
    next_owner: u32,
}

const BOUNDS: Bounds = Bounds {
    max_queued: 40,
    max_queued_bytes: 30_000,
    overload_wait_ms: 3000,
    overload_interval_ms: 500,
};

impl Pair {
    fn new(mutation: Option<Mutation>) -> Self {
        let settings = Settings {
            max_queued: BOUNDS.max_queued,
            max_queued_bytes: BOUNDS.max_queued_bytes,
            queue_timeout: Duration::from_secs(20),
            overload_wait: Duration::from_millis(BOUNDS.overload_wait_ms),
            overload_interval: Duration::from_millis(BOUNDS.overload_interval_ms),
            ..Settings::default()
        };
        let mut pair = Self {
            real: Scheduler::new(settings),
            twin: Twin::new(BOUNDS),
            groups: Vec::new(),
            tenants: Vec::new(),
            terms: Vec::new(),
            keys: Vec::new(),
            models: Vec::new(),
            live_groups: Vec::new(),
            live_tenants: Vec::new(),
            live_keys: Vec::new(),
            live_models: Vec::new(),
            tickets: BTreeMap::new(),
            next_owner: 0,
        };
        pair.real.mutation = mutation;
        for its_weight in [100, 300] {
            pair.add_group(its_weight);
        }
        for n in 0..5 {
            pair.add_tenant(n % 2, 100);
        }
        for n in 0..3 {
            pair.add_key(n, [None, Some(1), Some(2)][n]);
        }
        for cap in [None, Some(1), Some(3)] {
            pair.add_model(cap);
        }
        pair.real.set_max_in_flight(3);
        pair.twin.max = 3;
        pair.twin.end_pass();
        pair
    }

    fn add_group(&mut self, its_weight: u32) {
        let at = self.groups.len();
        self.groups.push(group(&mut self.real, &at.to_string(), its_weight));
        self.twin.add_group(at, its_weight);
        self.live_groups.push(at);
    }

    fn add_tenant(&mut self, in_group: usize, its_weight: u32) {
        let its_terms = terms(self.groups[in_group], its_weight);
        self.live_tenants.push(self.tenants.len());
        self.tenants.push(tenant(&mut self.real, &its_terms));
        self.terms.push(its_terms);
        self.twin.add_tenant(in_group, its_weight);
    }

    fn add_key(&mut self, of_tenant: usize, cap: Option<u32>) {
        let key = self.real.add_key(self.tenants[of_tenant], cap).unwrap();
        self.live_keys.push(self.keys.len());
        self.keys.push((of_tenant, key));
        self.twin.key_caps.push(cap);
    }

    fn add_model(&mut self, cap: Option<u32>) {
        self.models.push(self.real.add_model(ModelId::mint(), 100, cap));
        self.twin.models.push(super::twin::Model::new());
        let at = self.twin.models.len() - 1;
        self.live_models.push(at);
        self.twin.set_model(at, 100, cap);
        self.twin.end_pass();
    }

    fn owners(&self, state: State) -> Vec<u32> {
        let chosen = self.twin.asked.iter().filter(|asked| asked.state == state);
        chosen.map(|asked| asked.owner).collect()
    }

    fn perform(&mut self, act: &Act) -> Check {
        match *act {
            Act::Enter { .. } => return self.enter(act),
            Act::Settle { nth, input, output } => self.leave(nth, Leave::Settled { input, output })?,
            Act::Abort { nth, output } => self.leave(nth, Leave::Aborted { output })?,
            Act::Unused { nth } => self.leave(nth, Leave::Unused)?,
            Act::Progress { nth, output } => {
                if let Some(owner) = pick(&self.owners(State::Running), nth) {
                    self.real.progress(self.tickets[&owner], output);
                    self.twin.progress(owner, output);
                }
            }
            Act::Cancel { nth } => {
                if let Some(owner) = pick(&self.owners(State::Queued), nth) {
                    ensure!(self.real.cancel(self.tickets[&owner]), "I7: {owner} waits and cannot be cancelled");
                    self.twin.cancel(owner);
                }
            }
            Act::Stale { nth } => {
                let known: BTreeSet<u32> = self.twin.asked.iter().map(|asked| asked.owner).collect();
                let ended: Vec<u32> = self.tickets.keys().copied().filter(|owner| !known.contains(owner)).collect();
                if let Some(owner) = pick(&ended, nth) {
                    let ticket = self.tickets[&owner];
                    let now = self.real.now;
                    ensure!(!self.real.cancel(ticket), "I7: {owner} has ended and was cancelled");
                    ensure!(!self.real.leave(ticket, Leave::Unused, now), "I7: {owner} has ended twice");
                }
            }
            Act::Pass { ms } => {
                let now_ms = self.twin.now_ms + ms;
                let expired = self.twin.advance(now_ms);
                self.real.advance(at_ms(now_ms));
                return self.settle_events(expired);
            }
            _ => self.operate(act),
        }
        self.settle_events(BTreeSet::new())
    }

    fn enter(&mut self, act: &Act) -> Check {
        let &Act::Enter {
            tenant,
            key,
            model,
            input,
            output_max,
            patience_ms,
        } = act
        else {
            return Ok(());
        };
        let Some(tenant) = pick(&self.live_tenants, tenant) else {
            return Ok(());
        };
        let owner = self.next_owner;
        self.next_owner += 1;
        let own_keys: Vec<usize> = self.live_keys.iter().copied().filter(|key| self.keys[*key].0 == tenant).collect();
        let key = key.and_then(|key| pick(&own_keys, key));
        let model = model.and_then(|model| pick(&self.live_models, model));
        let patience_ms = patience_ms.min(20_000);
        let asked = Asked {
            key,
            model: model.unwrap_or(0),
            input,
            output_max,
            body: input,
            ..self.twin.new_request(owner, tenant, patience_ms)
        };
        let request = Request {
            tenant: self.tenants[tenant],
            key: key.map(|key| self.keys[key].1),
            model: model.map(|model| self.models[model - 1]),
            input_tokens: input,
            max_tokens: output_max,
            body_bytes: input,
            patience: Some(Duration::from_millis(patience_ms)),
            owner,
        };
        let runs = self.twin.runs_at_once(&asked);
        match self.real.enter(&request, at_ms(self.twin.now_ms)) {
            Ok(Entered::Granted(grant)) => {
                ensure!(runs, "R2: {owner} overtook, or there was no room");
                self.tickets.insert(owner, grant.ticket);
                self.twin.run_at_once(asked);
            }
            Ok(Entered::Queued(ticket)) => {
                ensure!(!runs, "I3: {owner} waits although there is room");
                ensure!(self.twin.has_place(&asked), "R12: {owner} waits beyond the bound");
                self.tickets.insert(owner, ticket);
                self.twin.enqueue(asked);
            }
            Err(Refused::QueueFull { .. }) => {
                ensure!(
                    !runs && !self.twin.has_place(&asked),
                    "R12: {owner} was refused although there is a place"
                );
            }
            Err(Refused::NoPatience { .. }) => ensure!(!runs && patience_ms == 0, "{owner} was refused and would wait"),
            Err(Refused::UnknownTenant) => return Err(format!("{owner} was refused and its tenant lives")),
        }
        self.settle_events(BTreeSet::new())
    }

    fn leave(&mut self, nth: usize, how: Leave) -> Check {
        let Some(owner) = pick(&self.owners(State::Running), nth) else {
            return Ok(());
        };
        let model = self.twin.asked.iter().find(|asked| asked.owner == owner).map(|asked| asked.model);
        let used = match how {
            Leave::Unused => None,
            Leave::Aborted { output } => Some((None, output, false)),
            Leave::Settled { input, output } => Some((Some(input), output, true)),
        };
        self.twin.leave(owner, used);
        let now = at_ms(self.twin.now_ms);
        ensure!(self.real.leave(self.tickets[&owner], how, now), "I7: {owner} runs and cannot end");
        self.forget_drained(model);
        Ok(())
    }

    /// A deleted model's pool goes with its last request.
    fn forget_drained(&mut self, model: Option<usize>) {
        let Some(model) = model.filter(|model| *model > 0 && !self.live_models.contains(model)) else {
            return;
        };
        if !self.twin.asked.iter().any(|asked| asked.model == model) {
            self.twin.forget_pool(model);
        }
    }

    /// What an operator does.
    fn operate(&mut self, act: &Act) {
        match *act {
            Act::SetMax { slots } => {
                self.twin.max = slots;
                self.real.set_max_in_flight(slots);
            }
            Act::TenantWeight { tenant, weight: new } => {
                let Some(at) = pick(&self.live_tenants, tenant) else { return };
                self.terms[at].weight = weight(new);
                self.twin.set_tenant_weight(at, new);
                self.real.set_tenant(self.tenants[at], &self.terms[at]);
            }
            Act::GroupWeight { group, weight: new } => {
                let Some(at) = pick(&self.live_groups, group) else { return };
                self.twin.set_group_weight(at, new);
                self.real.set_group_weight(self.groups[at], weight(new));
            }
            Act::TenantCap { tenant, cap, max_queued } => {
                let Some(at) = pick(&self.live_tenants, tenant) else { return };
                self.terms[at].max_in_flight = cap;
                self.terms[at].max_queued = max_queued;
                self.twin.tenants[at].cap = cap;
                self.twin.tenants[at].max_queued = max_queued;
                self.twin.refresh(|_| false);
                self.real.set_tenant(self.tenants[at], &self.terms[at]);
            }
            Act::KeyCap { key, cap } => {
                let Some(at) = pick(&self.live_keys, key) else { return };
                self.twin.key_caps[at] = cap;
                self.twin.refresh(|_| false);
                self.real.set_key(self.keys[at].1, cap);
            }
            Act::SetModel { model, percent, cap } => {
                let Some(at) = pick(&self.live_models, model) else { return };
                self.twin.set_model(at, percent, cap);
                self.real.set_model(self.models[at - 1], percent, cap);
            }
            Act::Move { tenant, group } => {
                let Some(at) = pick(&self.live_tenants, tenant) else { return };
                let Some(to) = pick(&self.live_groups, group) else { return };
                if to != self.twin.tenants[at].group {
                    self.terms[at].group = self.groups[to];
                    self.twin.move_tenant(at, to);
                    self.real.set_tenant(self.tenants[at], &self.terms[at]);
                }
            }
            _ => self.replace(act),
        }
    }

    /// Something is deleted, whatever it has waiting and running, and a new one comes.
    fn replace(&mut self, act: &Act) {
        match *act {
            Act::ReplaceTenant { tenant, weight } => {
                let Some(at) = pick(&self.live_tenants, tenant) else { return };
                let in_group = self.twin.tenants[at].group;
                self.live_tenants.retain(|other| *other != at);
                self.twin.tenants[at].gone = true;
                for key in std::mem::take(&mut self.live_keys) {
                    if self.keys[key].0 == at {
                        self.real.remove_key(self.keys[key].1);
                    } else {
                        self.live_keys.push(key);
                    }
                }
                self.real.remove_tenant(self.tenants[at]);
                self.add_tenant(in_group, weight);
            }
            Act::ReplaceKey { key, cap } => {
                let Some(at) = pick(&self.live_keys, key) else { return };
                self.live_keys.retain(|other| *other != at);
                self.real.remove_key(self.keys[at].1);
                self.add_key(self.keys[at].0, cap);
            }
            Act::ReplaceModel { model, cap } => {
                let Some(at) = pick(&self.live_models, model) else { return };
                self.live_models.retain(|other| *other != at);
                self.real.remove_model(self.models[at - 1]);
                self.forget_drained(Some(at));
                self.add_model(cap);
            }
            Act::ReplaceGroup { group, weight } => {
                let Some(at) = pick(&self.live_groups, group) else { return };
                if !self.live_tenants.iter().any(|tenant| self.twin.tenants[*tenant].group == at) {
                    self.live_groups.retain(|other| *other != at);
                    self.real.remove_group(self.groups[at]);
                    self.add_group(weight);
                }
            }
            _ => {}
        }
    }

    /// Checks what the scheduler has decided, event by event, and that it has decided enough.
    fn settle_events(&mut self, mut expired: BTreeSet<u32>) -> Check {
        for event in events(&mut self.real) {
            match event {
                Event::Expired { owner, .. } => ensure!(expired.remove(&owner), "R13: {owner} expired before its time"),
                Event::Dismissed { owner } => {
                    let asked = self
                        .twin
                        .asked
                        .iter()
                        .find(|asked| asked.owner == owner && asked.state == State::Queued);
                    let Some(asked) = asked else {
                        return Err(format!("I7: {owner} was dismissed and does not wait"));
                    };
                    ensure!(self.twin.tenants[asked.tenant].gone, "{owner} was dismissed and its tenant lives");
                    self.twin.cancel(owner);
                }
                Event::Granted { owner, grant } => {
                    self.tickets.insert(owner, grant.ticket);
                    self.twin.granted(owner)?;
                }
            }
        }
        self.twin.end_pass();
        ensure!(expired.is_empty(), "R13: {expired:?} are overdue and still wait");
        let drained: Vec<usize> = (1..self.twin.models.len())
            .filter(|model| !self.live_models.contains(model))
            .collect();
        for model in drained {
            self.forget_drained(Some(model));
        }
        self.compare()
    }

    fn compare(&mut self) -> Check {
        self.twin.check_work_conservation()?;
        self.compare_counts()?;
        self.compare_tags()?;
        self.check_heaps()
    }

    /// I2 and I10.
    fn compare_counts(&mut self) -> Check {
        let counts = |twin: &Twin, chosen: &dyn Fn(&Asked) -> bool| (twin.count(State::Running, chosen), twin.count(State::Queued, chosen));
        let (real, twin) = (&self.real, &self.twin);
        ensure!((real.in_flight(), real.queued()) == counts(twin, &|_| true), "I2: node");
        ensure!(real.tickets.len() == twin.asked.len(), "I2: tickets");
        for (at, handle) in self.tenants.iter().enumerate() {
            let Some(ix) = real.tenants.find(*handle) else {
                ensure!(
                    counts(twin, &|asked| asked.tenant == at) == (0, 0),
                    "I2: tenant {at} went too early"
                );
                continue;
            };
            let it = &real.tenants[ix];
            ensure!(
                (it.in_flight, it.queued) == counts(twin, &|asked| asked.tenant == at),
                "I2: tenant {at}"
            );
            let served = i128::from(it.served.steps() / 64);
            ensure!(
                served == twin.tenants[at].served,
                "I10: tenant {at} paid {served}, owes {}",
                twin.tenants[at].served
            );
        }
        for (at, handle) in self.groups.iter().enumerate() {
            let Some(ix) = real.groups.find(*handle) else { continue };
            let it = &real.groups[ix];
            let of_group = |asked: &Asked| twin.tenants[asked.tenant].group == at;
            ensure!((it.in_flight, it.queued) == counts(twin, &of_group), "I2: group {at}");
        }
        for (at, handle) in self.models.iter().enumerate() {
            let Some(ix) = real.models.find(*handle) else { continue };
            let it = &real.models[ix];
            ensure!(
                (it.in_flight, it.queued) == counts(twin, &|asked| asked.model == at + 1),
                "I2: model {at}"
            );
        }
        let pools: u32 = real.pools.iter().map(|(_, pool)| pool.in_flight).sum();
        ensure!(pools == real.in_flight(), "I2: pools hold {pools} slots");
        self.compare_active_weights()
    }

    /// I2 of the sums that shares are shares of, and of what runs on capped models.
    fn compare_active_weights(&self) -> Check {
        let real = &self.real;
        let active = real.groups.iter().filter(|(_, group)| group.is_active());
        let sum: u64 = active.map(|(_, group)| u64::from(group.tag.weight())).sum();
        ensure!(
            real.node.active_weight == sum,
            "I2: active groups weigh {sum}, not {}",
            real.node.active_weight
        );
        for (ix, group) in real.groups.iter() {
            let active = real.tenants.iter().filter(|(_, tenant)| tenant.group == ix && tenant.is_active());
            let sum: u64 = active.map(|(_, tenant)| u64::from(tenant.tag.weight())).sum();
            ensure!(
                group.active_weight == sum,
                "I2: tenants of {ix:?} weigh {sum}, not {}",
                group.active_weight
            );
        }
        for (ix, model) in real.models.iter() {
            let counts = real.tenants.iter().flat_map(|(_, tenant)| &tenant.of_capped);
            let counted: u32 = counts.filter(|(of, _)| *of == ix).map(|(_, count)| *count).sum();
            let runs = if model.pool == real.shared { 0 } else { model.in_flight };
            ensure!(counted == runs, "I2: tenants count {counted} of {ix:?}, not {runs}");
        }
        Ok(())
    }

    fn pool_of(&self, pool: PoolKey) -> Option<PoolIx> {
        match pool {
            None => Some(self.real.shared),
            Some(model) => self.real.models.find(self.models[model - 1]).map(|ix| self.real.models[ix].pool),
        }
    }

    /// Tags and clocks agree; with the twin's clocks only moving forward, that is I5's first half.
    fn compare_tags(&self) -> Check {
        let (real, twin) = (&self.real, &self.twin);
        let same = |what: &str, tag: &crate::scheduler::tag::Tag, other: &super::twin::Tag| -> Check {
            ensure!(
                near(tag.start, other.start),
                "{what}: start {} is not {}",
                tag.start as f64 / 65_536.0,
                other.start
            );
            let credit = tag.credit as f64 / 65_536.0;
            ensure!(
                (credit - other.credit).abs() < super::twin::NEAR,
                "{what}: credit {credit} is not {}",
                other.credit
            );
            Ok(())
        };
        ensure!(
            near(real.node.clock.v, twin.node.v),
            "node clock {} is not {}",
            real.node.clock.v as f64 / 65_536.0,
            twin.node.v
        );
        for (at, handle) in self.groups.iter().enumerate() {
            let Some(ix) = real.groups.find(*handle) else { continue };
            same("group", &real.groups[ix].tag, &twin.groups[&at].tag)?;
            ensure!(near(real.groups[ix].clock.v, twin.groups[&at].clock.v), "clock of group {at}");
        }
        for (at, handle) in self.tenants.iter().enumerate() {
            let Some(ix) = real.tenants.find(*handle) else { continue };
            same("tenant", &real.tenants[ix].tag, &twin.tenants[at].tag)?;
        }
        for (&(at, pool), lane) in twin.lanes.iter().filter(|((_, pool), _)| pool.is_some()) {
            let Some(tenant) = real.tenants.find(self.tenants[at]) else {
                continue;
            };
            let ix = self.pool_of(pool).and_then(|pool| real.lane_of(tenant, pool));
            let Some(ix) = ix else {
                return Err(format!("lane ({at}, {pool:?}) is missing"));
            };
            same("lane", &real.lanes[ix].tag, &lane.tag)?;
        }
        for (&(at, pool), branch) in twin.branches.iter().filter(|((_, pool), _)| pool.is_some()) {
            let Some(group) = real.groups.find(self.groups[at]) else { continue };
            let ix = self
                .pool_of(pool)
                .map(|pool| real.groups[group].branch(pool))
                .filter(|ix| ix.is_some());
            let Some(ix) = ix else {
                return Err(format!("branch ({at}, {pool:?}) is missing"));
            };
            same("branch", &real.branches[ix].tag, &branch.tag)?;
            ensure!(near(real.branches[ix].clock.v, branch.clock.v), "clock of branch ({at}, {pool:?})");
        }
        Ok(())
    }

    /// I5's second half: whoever is ready is in its heaps, under a key that is no more than its tag.
    fn check_heaps(&self) -> Check {
        let real = &self.real;
        for (ix, lane) in real.lanes.iter().filter(|(_, lane)| lane.ready > 0) {
            let branch = &real.branches[lane.branch];
            let tag = real.tenants[lane.tenant].tag.start;
            let held = branch
                .by_node
                .entries()
                .find(|entry| entry.owner == ix && entry.stamp == lane.node_entry);
            ensure!(
                held.is_some_and(|entry| entry.key <= tag),
                "I5: {ix:?} on the node clock: {held:?} for {tag}"
            );
            if lane.pool != real.shared {
                let held = branch
                    .by_model
                    .entries()
                    .find(|entry| entry.owner == ix && entry.stamp == lane.model_entry);
                ensure!(
                    held.is_some_and(|entry| entry.key <= lane.tag.start),
                    "I5: {ix:?} on the model clock: {held:?}"
                );
            }
        }
        for (_, pool) in real.pools.iter() {
            for (ix, branch) in real.branches.iter().filter(|(_, branch)| branch.ready > 0) {
                let Some(entry) = pool
                    .by_node
                    .entries()
                    .find(|entry| entry.owner == ix && entry.stamp == branch.node_entry)
                else {
                    continue;
                };
                ensure!(
                    entry.key <= real.groups[branch.group].tag.start,
                    "I5: {ix:?} on the node clock: {entry:?}"
                );
            }
        }
        Ok(())
    }
}

fn pick<T: Copy>(among: &[T], nth: usize) -> Option<T> {
    (!among.is_empty()).then(|| among[nth % among.len()])
}

fn run(acts: &[Act], mutation: Option<Mutation>) -> Check {
    let mut pair = Pair::new(mutation);
    pair.compare().map_err(|fault| format!("at the start: {fault}"))?;
    for (at, act) in acts.iter().enumerate() {
        pair.perform(act).map_err(|fault| format!("act {at}, {act:?}: {fault}"))?;
    }
    Ok(())
}

fn search(mutation: Option<Mutation>, cases: u32) -> Result<(), TestError<Vec<Act>>> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if mutation.is_some() { 0 } else { 4000 },
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let strategy = proptest::collection::vec(act(), 1..400);
    TestRunner::new_with_rng(config, random).run(&strategy, |acts| run(&acts, mutation).map_err(TestCaseError::fail))
}

#[test]
fn the_scheduler_decides_as_its_twin_allows_whatever_clients_and_operators_do() {
    if let Err(fault) = search(None, 200) {
        panic!("{fault}");
    }
}

#[track_caller]
fn is_found(mutation: Mutation, invariant: &str) {
    match search(Some(mutation), 150) {
        Err(TestError::Fail(reason, _)) => assert!(reason.message().contains(invariant), "found, but as: {reason}"),
        other => panic!("{mutation:?} was not found: {other:?}"),
    }
}

#[test]
fn a_branchs_stale_key_would_be_found() {
    is_found(Mutation::StaleGroupKey, "I4: group");
}

#[test]
fn a_lanes_stale_key_would_be_found() {
    is_found(Mutation::StaleTenantKey, "I4: tenant");
}

#[test]
fn a_pick_without_regard_to_room_would_be_found() {
    is_found(Mutation::RoomIgnored, "I1");
}

#[test]
fn a_tag_that_decreased_unlisted_would_be_found() {
    is_found(Mutation::DecreaseUnlisted, "I5");
}
