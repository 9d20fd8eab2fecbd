//! The long form of the chaos harness: `cargo bench --bench chaos [-- CYCLES SUBMITS EARLY ROUNDS]`.
//!
//! Prints what was done, what failed, and the bound that zero failures give (3/N at 95 %). The
//! defaults are those of docs/RELIABILITY.md: 200 10000 10000 50.

#![allow(clippy::disallowed_methods, reason = "it measures")]

#[path = "../tests/support/chaos.rs"]
mod chaos;
#[path = "../tests/support/mod.rs"]
mod support;

pub use support::{Program, Service, Setup, http_client, ready_job, text};

use chaos::percentile;

#[tokio::main]
async fn main() {
    let given: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |position: usize, default| given.get(position).copied().unwrap_or(default);

    let kills = chaos::kill_cycles(number(0, 200)).await;
    println!(
        "SIGKILL: {} cycles, {} callbacks acknowledged, {} lost; ready p50 {:?}, p99 {:?}; {}",
        kills.cycles,
        kills.acknowledged,
        kills.lost,
        percentile(&kills.ready, 50),
        percentile(&kills.ready, 99),
        bound(kills.acknowledged, kills.lost)
    );
    let submits = chaos::faulty_submits(number(1, 10_000) / chaos::faults().len()).await;
    println!(
        "faulty submits: {}, {} blind repeats, {} misjudged; {}",
        submits.submits,
        submits.repeated,
        submits.misjudged.len(),
        bound(submits.submits, submits.repeated + submits.misjudged.len())
    );
    let early = chaos::early_callbacks(number(2, 10_000)).await;
    println!(
        "early callbacks: {}, {} orphans, {} unfinished; {}",
        early.callbacks,
        early.orphans,
        early.unfinished,
        bound(early.callbacks, early.orphans + early.unfinished)
    );
    match chaos::disk_rounds(number(3, 50)).await {
        Some(disk) => println!(
            "full disk: {} rounds, {} acknowledged, {} of them while full, {} lost; normal service \
             after p50 {:?}, max {:?}; {}",
            disk.rounds,
            disk.acknowledged,
            disk.while_full,
            disk.lost,
            percentile(&disk.recovery, 50),
            percentile(&disk.recovery, 100),
            bound(disk.acknowledged, disk.lost)
        ),
        None => println!("full disk: SKIPPED, no tmpfs can be mounted here (it needs root)"),
    }
}

fn bound(trials: usize, failures: usize) -> String {
    match failures {
        0 => format!("below {:.1e} at 95 % (3/N)", 3.0 / trials as f64),
        _ => format!("{failures} FAILED"),
    }
}
