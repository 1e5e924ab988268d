//! One operation, so many times: what `scripts/instructions` runs at two lengths under callgrind, to count what one costs.
//!
//! Everything before the repetitions is the same at every length, so it falls out of the difference.

#[expect(unreachable_pub, dead_code, reason = "shared with the other bench, which uses other parts")]
mod load;

#[path = "load/ledger.rs"]
mod ledger;

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use load::{Backlog, Uncontended};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let Some(times) = arguments.next().and_then(|times| times.parse().ok()) else {
        // `cargo bench` and `cargo test --benches` come without; there is nothing to measure by the clock.
        return;
    };
    match operation.as_str() {
        "acquire_release" => {
            let uncontended = Uncontended::new(64);
            repeat(times, || uncontended.acquire_and_release());
        }
        "acquire_release_semaphore" => {
            let semaphore = Arc::new(tokio::sync::Semaphore::new(64));
            repeat(times, || drop(black_box(load::once(Arc::clone(&semaphore).acquire_owned()))));
        }
        "cycle_1" => cycle(1, times),
        "cycle_100" => cycle(100, times),
        "cycle_10000" => cycle(10_000, times),
        "cancel_of_100" => cancel(1100, times),
        "cancel_of_100000" => cancel(100_000, times),
        "progress" => {
            let mut backlog = Backlog::of(10);
            let mut output = 0;
            repeat(times, || {
                output += 16;
                backlog.progress(output);
            });
        }
        "wait_wake" => {
            let uncontended = Rc::new(Uncontended::new(64));
            run_tasks(times, move || {
                let uncontended = Rc::clone(&uncontended);
                async move {
                    let permit = uncontended.admit().await;
                    tokio::task::yield_now().await;
                    permit.settle(200, 128);
                }
            });
        }
        "wait_wake_semaphore" => {
            let semaphore = Arc::new(tokio::sync::Semaphore::new(64));
            run_tasks(times, move || {
                let semaphore = Arc::clone(&semaphore);
                async move {
                    let permit = semaphore.acquire_owned().await;
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            });
        }
        // A turn of the two above without what they wait for: the yield and the task.
        "wait_wake_nothing" => {
            let turns = Rc::new(Cell::new(0_u64));
            run_tasks(times, move || {
                let turns = Rc::clone(&turns);
                async move {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
        }
        "ledger_append" => ledger::append(times),
        unknown => panic_free_exit(unknown),
    }
}

fn repeat(times: usize, mut operation: impl FnMut()) {
    for _ in 0..times {
        operation();
    }
}

fn cycle(tenants: usize, times: usize) {
    let mut backlog = Backlog::of(tenants);
    // Past the first laps, in which activation and the burst reorder everybody.
    repeat(tenants * 4, || backlog.cycle());
    repeat(times, || backlog.cycle());
}

fn cancel(requests: usize, times: usize) {
    let mut backlog = Backlog::with(100, requests);
    repeat(times, || backlog.cancel());
}

/// A thousand tasks; `times` counts turns of all.
fn run_tasks<F, Fut>(times: usize, turn: F)
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = ()>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        return;
    };
    runtime.block_on(load::tasks(1000, times / 1000, turn));
}

fn panic_free_exit(unknown: &str) {
    eprintln!("no operation {unknown:?}");
    std::process::exit(2);
}
