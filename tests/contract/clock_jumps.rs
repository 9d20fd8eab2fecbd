//! A clock that jumps: by an hour, a day, to 1970 and to 2038, and back. Nothing is lost, given up
//! or refused by it.

use std::time::Duration;

use finishline::clock::Clock;
use jiff::Timestamp;
use serde_json::Value;

use crate::support::{Service, Setup, ready_job, text};

/// Seconds since the epoch, in the order in which the clock shows them.
const HOURS: [i64; 8] = [
    1_800_000_000,
    1_800_003_600,          // an hour on
    1_800_000_000 - 3_600,  // an hour back
    1_800_000_000 + 86_400, // a day on
    1_800_000_000 - 86_400, // a day back
    1,                      // 1970
    2_147_483_648,          // 2038, past the end of 32-bit seconds
    1_800_000_000,
];

async fn count(service: &Service) -> usize {
    service.jobs().await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_through_whatever_the_clock_shows() {
    let mut service = Setup::new().clock(&Clock::manual(at(HOURS[0]))).start().await;
    let left_open = service.submitted(&ready_job()).await;
    let mut finished: Vec<Value> = Vec::new();
    for (round, seconds) in HOURS.into_iter().enumerate() {
        service.stop().await;
        service.clock = Clock::manual(at(seconds));
        service.start_again().await;
        let job = service.submitted(&ready_job()).await;
        finished.push(service.finish(&job).await);
        service.reconcile().await;
        assert_eq!(count(&service).await, round + 2, "at {seconds} every job is listed");
        assert_eq!(service.job(text(&left_open["id"])).await["status"], "submitted");
    }
    for job in finished {
        let path = format!("/v1/jobs/{}/result", text(&job["id"]));
        assert_eq!(service.get(&path).await.expect(200).json()["success"], true);
    }
    // The open one is looked up as ever once the clock is right: its due time of 2038 is nonsense.
    service.engine.set(|options| options.drop_callbacks = finishline::simulator::FaultRate::Always);
    service.engine.finish(text(&left_open["engineJobId"]));
    service.clock.advance(Duration::from_secs(31 * 60));
    crate::support::wait_for("the open job to be found", async || {
        service.reconcile().await;
        Some(service.job(text(&left_open["id"])).await).filter(|job| job["success"] == true)
    })
    .await;
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}
