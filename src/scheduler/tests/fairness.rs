//! What tenants get, simulated: the promises of the room, with bounds near what was measured. Seeds are fixed; a failure
//! prints what was got instead.

use super::simulation::{Behaviour, Output, Simulation, fairness};
use super::*;
use crate::id::ModelId;

const USUAL: Output = Output::LogNormal(200.0, 1.0);

fn default_group(simulation: &mut Simulation) -> Handle<GroupIx> {
    group(&mut simulation.scheduler, "default", 100)
}

/// (i) Two backlogged tenants of weights 500 and 50 on 64 slots.
#[test]
fn backlogged_tenants_get_tokens_by_weight_within_a_hundredth_over_ten_seconds() {
    for seed in 1..=3 {
        let mut simulation = Simulation::new(64, seed);
        let group = default_group(&mut simulation);
        let heavy = simulation.client(&terms(group, 500), Behaviour::backlogged(USUAL));
        let light = simulation.client(&terms(group, 50), Behaviour::backlogged(USUAL));
        simulation.run_until(360.0);
        let (error, jain) = fairness(&simulation, &[(heavy, 500.0), (light, 50.0)], 60.0, 360.0);
        assert!(error <= 0.010, "seed {seed}: mean error {error:.4}");
        assert!(jain >= 0.995, "seed {seed}: Jain {jain:.4}");
    }
}

/// (ii) A flood of 10 000 holds the node; at 120 s somebody else comes.
#[test]
fn a_newcomer_runs_on_the_next_free_slots_and_has_its_share_within_one_and_a_half_service_times() {
    for seed in 1..=3 {
        let mut simulation = Simulation::new(64, seed);
        let group = default_group(&mut simulation);
        let flood = Behaviour {
            outstanding: 10_000,
            ..Behaviour::backlogged(USUAL)
        };
        let flood = simulation.client(&terms(group, 100), flood);
        let newcomer = Behaviour {
            active_s: (120.0, f64::INFINITY),
            ..Behaviour::backlogged(USUAL)
        };
        let newcomer = simulation.client(&terms(group, 100), newcomer);
        simulation.run_until(180.0);
        let first = simulation.first_grant_s(newcomer) - 120.0;
        // 64 slots of 8 s free one each eighth of a second; two of them, with room for an unlucky stretch.
        assert!(first <= 0.6, "seed {seed}: first grant after {first:.2} s");
        let share = |from: f64, to: f64| {
            let (old, new) = (simulation.got(flood, from, to), simulation.got(newcomer, from, to));
            new / (old + new)
        };
        // 12 s are one and a half mean service times, so the window from 10 s to 20 s must be at its share.
        assert!(share(130.0, 140.0) >= 0.45, "seed {seed}: {:.3}", share(130.0, 140.0));
        for from in [130.0, 140.0, 150.0, 160.0, 170.0] {
            assert!(
                share(from, from + 10.0) <= 0.64,
                "seed {seed}: overshoot to {:.3} at {from}",
                share(from, from + 10.0)
            );
        }
    }
}

/// (iii) Four equal tenants whose answers are 50, 200, 1200 and 150 tokens long, the last with a heavy tail.
#[test]
fn long_answers_buy_no_larger_share() {
    for seed in 1..=3 {
        let mut simulation = Simulation::new(64, seed);
        let group = default_group(&mut simulation);
        let outputs = [(50.0, 0.5), (200.0, 0.7), (1200.0, 0.5), (150.0, 1.5)];
        let clients: Vec<(usize, f64)> = outputs
            .iter()
            .map(|(median, sigma)| {
                (
                    simulation.client(&terms(group, 100), Behaviour::backlogged(Output::LogNormal(*median, *sigma))),
                    1.0,
                )
            })
            .collect();
        simulation.run_until(360.0);
        let (error, jain) = fairness(&simulation, &clients, 60.0, 360.0);
        assert!(error <= 0.03, "seed {seed}: mean error {error:.4}");
        assert!(jain >= 0.99, "seed {seed}: Jain {jain:.4}");
    }
}

/// Equal requests that all finish at once: a clock that charges only while it streams would swing between the tenants.
#[test]
fn requests_in_lockstep_do_not_make_shares_swing() {
    let mut simulation = Simulation::new(64, 1);
    let group = default_group(&mut simulation);
    let clients: Vec<(usize, f64)> = (0..2)
        .map(|_| {
            (
                simulation.client(&terms(group, 100), Behaviour::backlogged(Output::Fixed(400))),
                1.0,
            )
        })
        .collect();
    simulation.run_until(330.0);
    let (error, _) = fairness(&simulation, &clients, 30.0, 330.0);
    assert!(error <= 0.03, "mean error {error:.4}");
}

/// (iv) Groups 3:1, in the first two tenants 1:3, in the second ten alike.
#[test]
fn shares_nest() {
    let mut simulation = Simulation::new(64, 1);
    let large = group(&mut simulation.scheduler, "large", 300);
    let small = group(&mut simulation.scheduler, "small", 100);
    let mut clients = vec![
        (simulation.client(&terms(large, 100), Behaviour::backlogged(USUAL)), 0.1875),
        (simulation.client(&terms(large, 300), Behaviour::backlogged(USUAL)), 0.5625),
    ];
    for _ in 0..10 {
        clients.push((simulation.client(&terms(small, 100), Behaviour::backlogged(USUAL)), 0.025));
    }
    simulation.run_until(330.0);
    let total: f64 = clients.iter().map(|(client, _)| simulation.got(*client, 30.0, 330.0)).sum();
    for (client, due) in &clients {
        let share = simulation.got(*client, 30.0, 330.0) / total;
        assert!(
            (share - due).abs() <= 0.02 * due + 0.002,
            "tenant {client} got {share:.4}, due {due}"
        );
    }
}

/// (v) Whoever comes back from idleness neither takes over nor is taken over by who used its share meanwhile.
#[test]
fn a_tenant_back_from_idleness_shares_at_once_and_alike() {
    let mut simulation = Simulation::new(64, 1);
    let group = default_group(&mut simulation);
    let stays = simulation.client(&terms(group, 100), Behaviour::backlogged(USUAL));
    let returns = Behaviour {
        active_s: (150.0, f64::INFINITY),
        ..Behaviour::backlogged(USUAL)
    };
    let returns = simulation.client(&terms(group, 100), returns);
    simulation.run_until(220.0);
    for from in [160.0, 170.0, 180.0, 190.0, 200.0, 210.0] {
        let (old, new) = (simulation.got(stays, from, from + 10.0), simulation.got(returns, from, from + 10.0));
        let share = old / (old + new);
        assert!((0.42..=0.58).contains(&share), "incumbent's share {share:.3} from {from} s");
    }
}

/// (v) Twenty users who ask now and then, among a hundred floods: the burst spares them the queue.
#[test]
fn light_users_hardly_wait_among_floods() {
    let mut simulation = Simulation::new(64, 1);
    let group = default_group(&mut simulation);
    for _ in 0..100 {
        let flood = Behaviour {
            outstanding: 10,
            ..Behaviour::backlogged(USUAL)
        };
        simulation.client(&terms(group, 100), flood);
    }
    let light: Vec<usize> = (0..20)
        .map(|_| {
            let light = Behaviour {
                outstanding: 1,
                thinks_s: 60.0,
                ..Behaviour::backlogged(Output::LogNormal(100.0, 0.5))
            };
            simulation.client(&terms(group, 100), light)
        })
        .collect();
    simulation.run_until(400.0);
    let mut waits: Vec<f64> = light.iter().flat_map(|client| simulation.waits(*client, 60.0)).collect();
    waits.sort_by(f64::total_cmp);
    let p90 = waits[waits.len() * 9 / 10];
    assert!(waits.len() > 50 && p90 <= 1.0, "p90 {p90:.2} s of {} waits", waits.len());
}

/// (vi) One of four equal tenants cheats: it understates its answers, or goes away before their end.
#[test]
fn no_cheat_gets_more_than_a_twentieth_above_its_share() {
    let honest = Behaviour::backlogged(USUAL);
    let cheats = [
        (
            "says one token",
            Behaviour {
                max_tokens: Some(1),
                ..honest.clone()
            },
        ),
        (
            "goes away at 95 %",
            Behaviour {
                aborts_at: Some(0.95),
                ..honest.clone()
            },
        ),
        (
            "goes away at 10 %",
            Behaviour {
                aborts_at: Some(0.10),
                ..honest.clone()
            },
        ),
    ];
    for (name, cheat) in cheats {
        let mut simulation = Simulation::new(64, 1);
        let group = default_group(&mut simulation);
        let cheat = simulation.client(&terms(group, 100), cheat);
        let mut all = vec![cheat];
        for _ in 0..3 {
            all.push(simulation.client(&terms(group, 100), honest.clone()));
        }
        simulation.run_until(330.0);
        let total: f64 = all.iter().map(|client| simulation.got(*client, 30.0, 330.0)).sum();
        let share = simulation.got(cheat, 30.0, 330.0) / total;
        assert!(share <= 0.25 * 1.05, "who {name} gets {share:.3}");
    }
}

/// (vii) Model X has a cap, Y takes 48; A asks both, B only X.
fn two_models(slots: u32, cap_of_x: u32) -> (Simulation, usize, usize) {
    let mut simulation = Simulation::new(slots, 1);
    let group = default_group(&mut simulation);
    let x = simulation.scheduler.add_model(ModelId::mint(), 100, Some(cap_of_x));
    let y = simulation.scheduler.add_model(ModelId::mint(), 100, Some(48));
    let a = Behaviour {
        models: vec![x, y],
        outstanding: 200,
        ..Behaviour::backlogged(USUAL)
    };
    let a = simulation.client(&terms(group, 100), a);
    let b = Behaviour {
        models: vec![x],
        ..Behaviour::backlogged(USUAL)
    };
    let b = simulation.client(&terms(group, 100), b);
    simulation.run_until(300.0);
    (simulation, a, b)
}

#[test]
fn where_models_are_scarce_each_is_shared_by_itself_and_no_slot_idles() {
    let (simulation, a, b) = two_models(64, 16);
    assert!(simulation.busy() >= 63.0, "{:.2} slots busy of 64", simulation.busy());
    let of_x = |client: usize| simulation.got_by_model[&(client, Some(0))];
    let share = of_x(a) / (of_x(a) + of_x(b));
    assert!((0.475..=0.525).contains(&share), "A has {share:.3} of X");
}

#[test]
fn where_the_node_is_scarce_a_second_model_buys_no_second_share() {
    let (simulation, a, b) = two_models(40, 24);
    assert!(simulation.busy() >= 39.0, "{:.2} slots busy of 40", simulation.busy());
    let ratio = simulation.got(a, 50.0, 300.0) / simulation.got(b, 50.0, 300.0);
    assert!((0.95..=1.05).contains(&ratio), "A:B is {ratio:.3}");
}

/// With X taking 16, less than B's half of the node, B has all of X and A the rest: max-min fair.
#[test]
fn where_both_are_scarce_the_tenant_below_its_share_has_the_model_to_itself() {
    let (simulation, a, b) = two_models(40, 16);
    assert!(simulation.busy() >= 39.0, "{:.2} slots busy of 40", simulation.busy());
    let of_x = |client: usize| simulation.got_by_model.get(&(client, Some(0))).copied().unwrap_or(0.0);
    let share = of_x(b) / (of_x(a) + of_x(b));
    assert!(share >= 0.95, "B has {share:.3} of X");
}

/// I8: at every window's end, over random weights and slots.
#[test]
fn i8_service_by_weight_stays_within_the_bound_of_sfq_on_d_servers() {
    for (seed, slots, weights) in [(1, 8_u32, [100_u32, 300]), (2, 64, [500, 50]), (3, 16, [7, 1000])] {
        let mut simulation = Simulation::new(slots, seed);
        let group = default_group(&mut simulation);
        let clients = weights.map(|weight| simulation.client(&terms(group, weight), Behaviour::backlogged(USUAL)));
        // The dearest request: 200 input tokens at a quarter, 4000 output tokens.
        let dearest = 50.0 + 4000.0;
        let bound = f64::from(slots + 1) * weights.map(|weight| dearest / f64::from(weight)).iter().sum::<f64>();
        for window in 1..=15 {
            let end = f64::from(window) * 10.0;
            simulation.run_until(end);
            let [one, other] = [0, 1].map(|n| simulation.got(clients[n], 0.0, end) / f64::from(weights[n]));
            assert!(
                (one - other).abs() <= bound,
                "seed {seed}: {one:.0} and {other:.0}, bound {bound:.0}"
            );
        }
    }
}

/// I9: what idleness is worth.
#[test]
fn i9_a_return_from_idleness_gains_no_more_than_the_burst_and_one_request() {
    let mut simulation = Simulation::new(1, 1);
    let group = default_group(&mut simulation);
    let busy = simulation.client(&terms(group, 100), Behaviour::backlogged(Output::Fixed(150)));
    let idle = Behaviour {
        active_s: (1000.0, f64::INFINITY),
        ..Behaviour::backlogged(Output::Fixed(150))
    };
    let idle = simulation.client(&terms(group, 100), idle);
    simulation.run_until(1000.0);
    let mut most = 0.0_f64;
    for window in 101..160 {
        let end = f64::from(window) * 10.0;
        simulation.run_until(end);
        most = most.max(simulation.got(idle, 1000.0, end) - simulation.got(busy, 1000.0, end));
    }
    // A request is 200 units; one of the other's may be running when the window ends.
    assert!(most <= 1000.0 + 200.0 + 200.0, "gained {most:.0}");
    assert!(most >= 600.0, "the burst is there: {most:.0}");
}

/// I11: a light tenant's head waits for no more than what every other may be granted before it.
#[test]
fn i11_nobody_starves_whatever_the_others_weigh() {
    let mut simulation = Simulation::new(2, 1);
    let group = default_group(&mut simulation);
    let mut heavy = Vec::new();
    for _ in 0..5 {
        heavy.push(simulation.client(&terms(group, 1_000_000), Behaviour::backlogged(Output::LogNormal(100.0, 1.0))));
    }
    let light = Behaviour {
        outstanding: 3,
        ..Behaviour::backlogged(Output::Fixed(20))
    };
    let light = simulation.client(&terms(group, 50_000), light);
    simulation.run_until(2000.0);
    let waits = simulation.waits(light, 0.0);
    // A 100th of the service, in requests of 70 units, on a node of 80 units a second and five others.
    assert!(waits.len() > 15, "served {} times", waits.len());
    let total: f64 = heavy.iter().map(|client| simulation.got(*client, 0.0, 2000.0)).sum();
    let share = simulation.got(light, 0.0, 2000.0) / total;
    assert!((0.008..=0.013).contains(&share), "{share:.4} of a hundredth");
    let fair_s = 3.0 * 70.0 * 101.0 / 80.0;
    assert!(
        waits[waits.len() - 1] <= 3.0 * fair_s,
        "the longest wait was {:.0} s",
        waits[waits.len() - 1]
    );
}
