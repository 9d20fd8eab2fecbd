//! The memory that figures take does not grow with what was measured.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod support;

use std::time::Duration;

use finishline::clock::Clock;
use support::Setup;

const ROUNDS: usize = 40;

/// Samples of a round; each takes 8 bytes until it is summed up.
const SAMPLES: usize = 100_000;

/// What all samples would take is 32 MB.
const MOST_GROWTH: usize = 12_000_000;

/// What the service waits at most before it sums up.
const PAUSE: Duration = Duration::from_secs(5);

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.trim().strip_suffix(" kB").expect("kB");
    kib.trim().parse::<usize>().expect("a number") * 1024
}

#[tokio::test]
async fn samples_of_figures_take_no_memory_when_nobody_asks_for_them() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = Setup::new().clock(&clock).start().await;
    let measured = metrics::histogram!("finishline_store_commit_seconds");
    let mut before = 0;
    for round in 0..=ROUNDS {
        for _ in 0..SAMPLES {
            measured.record(0.01);
        }
        clock.advance(PAUSE);
        // Meanwhile the service has its turn.
        service.get("/healthz").await.expect(200);
        if round == 0 {
            before = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{grown} bytes more");
    let figures = service.get("/metrics").await.expect(200).text();
    let count = figures.lines().find_map(|line| {
        line.strip_prefix("finishline_store_commit_seconds_count ")?.parse::<usize>().ok()
    });
    assert!(count.is_some_and(|count| count >= (ROUNDS + 1) * SAMPLES), "none is lost: {count:?}");
}
