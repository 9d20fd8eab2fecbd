//! The short form of the chaos harness; `cargo bench --bench chaos` is the long one.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "../support/chaos.rs"]
mod chaos;
#[path = "../support/mod.rs"]
mod support;

pub use support::{Program, Service, Setup, http_client, ready_job, text};

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_callback_is_lost_however_often_the_service_is_killed() {
    let kills = chaos::kill_cycles(8).await;
    assert!(kills.acknowledged > 8, "the load was real: {}", kills.acknowledged);
    assert_eq!(kills.lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_submission_is_repeated_blindly_whatever_the_engine_does() {
    let report = chaos::faulty_submits(40).await;
    assert_eq!(report.submits, 400);
    assert_eq!(report.repeated, 0);
    assert_eq!(report.misjudged, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_overtakes_the_reply_finds_its_job() {
    let early = chaos::early_callbacks(300).await;
    assert_eq!((early.callbacks, early.orphans, early.unfinished), (300, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = chaos::disk_rounds(3).await else {
        let is_required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!is_required, "a tmpfs must be mountable where CI=true");
        eprintln!(
            "SKIPPED: no tmpfs can be mounted here (it needs root); CI=true makes it mandatory"
        );
        return;
    };
    assert_eq!(disk.lost, 0);
    assert!(disk.while_full > 0, "the spool took callbacks in while the disk was full");
}
