//! The scheduler by the clock, beside a scan over all tenants, a plain queue, and tokio's semaphore.

#[expect(unreachable_pub, dead_code, reason = "shared with the other bench, which uses other parts")]
mod load;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use load::{Backlog, Fifo, Scan, Uncontended};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cycles(&mut criterion);
    uncontended(&mut criterion);
    cancels(&mut criterion);
    waiters();
    criterion.final_summary();
}

/// Release, settle, dispatch, enqueue.
fn cycles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cycle");
    for tenants in [1_u32, 100, 10_000, 100_000] {
        let mut backlog = Backlog::of(tenants as usize);
        group.bench_function(BenchmarkId::new("fair_share", tenants), |bencher| bencher.iter(|| backlog.cycle()));
        let mut scan = Scan::of(tenants);
        group.bench_function(BenchmarkId::new("scan", tenants), |bencher| bencher.iter(|| scan.cycle()));
        let mut fifo = Fifo::of(tenants);
        group.bench_function(BenchmarkId::new("fifo", tenants), |bencher| bencher.iter(|| fifo.cycle()));
    }
    group.finish();
}

fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acquire_release");
    let admission = Uncontended::new(64);
    group.bench_function("admission", |bencher| bencher.iter(|| admission.acquire_and_release()));
    let semaphore = Arc::new(tokio::sync::Semaphore::new(64));
    group.bench_function("semaphore", |bencher| {
        bencher.iter(|| drop(black_box(load::once(Arc::clone(&semaphore).acquire_owned()))));
    });
    group.finish();
}

fn cancels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cancel");
    for waiters in [100, 100_000] {
        group.bench_function(BenchmarkId::from_parameter(waiters), |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = std::time::Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    let mut backlog = Backlog::with(100, waiters + 64);
                    let batch = left.min(waiters as u64);
                    let begin = std::time::Instant::now();
                    for _ in 0..batch {
                        backlog.cancel();
                    }
                    spent += begin.elapsed();
                    left -= batch;
                }
                spent
            });
        });
    }
    group.finish();
}

/// What 100 000 waiters of 1000 tenants hold in memory, by the process's resident pages.
fn waiters() {
    let Some(before) = resident_bytes() else { return };
    let backlog = Backlog::with(1000, 100_000);
    let Some(after) = resident_bytes() else { return };
    black_box(&backlog);
    // The bench keeps a handle of 8 bytes for each.
    eprintln!("memory per waiter: {} bytes", after.saturating_sub(before) / 100_000);
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
