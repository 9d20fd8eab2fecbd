//! Ctrl-C.

use crate::{
    process::Process,
    support::{Service, ready_job, text, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_says_how_to_resume_and_ends_with_130() {
    let service = Service::start().await;
    std::fs::write(service.folder().join("job.json"), ready_job().to_string()).unwrap();
    let mut waiting = Process::start(&service, &["submit", "job.json", "--wait"]);
    waiting.says("waiting for its result").await;
    let id = text(&service.jobs().await[0]["id"]).to_owned();
    // One that comes just before the wait begins is not heard.
    let code = wait_for("the wait to end", async || {
        waiting.signal("-INT");
        waiting.has_ended()
    });
    assert_eq!(code.await, Some(130));
    waiting.says(&format!("resume with: finishline jobs wait {id}")).await;
    assert_eq!(waiting.stdout(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_follower_ends_with_130() {
    let service = Service::start().await;
    service.submitted(&ready_job()).await;
    let mut following = Process::start(&service, &["events", "--follow", "--after", "0"]);
    following.shows(1).await;
    following.signal("-INT");
    assert_eq!(following.ended().await, Some(130));
    following.says("interrupted").await;
}
