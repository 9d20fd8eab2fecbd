//! By age: what finished long ago goes by itself, what runs or is younger stays.

use std::time::Duration;

use finishline::clock::Clock;
use jiff::Timestamp;

use crate::{
    marks::{assert_planted, files_with, marks_of, plant},
    support::*,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn jobs_that_finished_long_ago_are_erased_by_themselves() {
    let start: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    let clock = Clock::manual(start);
    let setup = Setup::new().set("RETENTION__ERASE_AFTER", "90d");
    let mut service = setup.set("RECONCILE__GIVE_UP", "3650d").clock(&clock).start().await;
    let old = plant(&service, "old").await;
    let old = text(&old["id"]);
    let running = service.submitted(&ready_job()).await;
    clock.advance(DAY * 89);
    let young = plant(&service, "young").await;
    let young = text(&young["id"]);
    // The first look comes with the start.
    service.restart().await;
    assert_planted(service.folder(), &marks_of("old"));
    clock.advance(DAY * 2);
    service.restart().await;
    wait_for("the old job to be in no file", async || {
        let is_gone = |mark: &String| files_with(service.folder(), mark).is_empty();
        marks_of("old").iter().all(is_gone).then_some(())
    })
    .await;
    service.get(&format!("/v1/jobs/{old}")).await.problem(410, "gone");
    assert_planted(service.folder(), &marks_of("young"));
    assert_eq!(service.get(&format!("/v1/jobs/{young}")).await.status, 200);
    assert_eq!(service.job(text(&running["id"])).await["status"], "submitted");
    let late = service.post_to(&service.callback_url(old), r#"{"success": true}"#).await;
    late.problem(410, "gone");
}
