//! Senders that take their time.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    program::{BODY, Program, Setup, alone, json, wait_for},
    wire::{Answer, Sender, head},
};

const SLOW_SENDERS: usize = 2_000;

/// Honest callbacks to each of the two services.
const HONEST: usize = 60;

/// Between two bytes of a slow sender: shorter than any limit on silence here.
const DRIP: Duration = Duration::from_secs(1);

/// Sends a byte now and then until the connection ends; answers what came back.
async fn drip(mut sender: Sender) -> Option<Answer> {
    loop {
        match tokio::time::timeout(DRIP, sender.answer()).await {
            Ok(answer) => return answer,
            Err(_) => sender.send("x").await,
        }
    }
}

async fn slow_head(service: std::net::SocketAddr) -> Option<Answer> {
    let mut sender = Sender::connect(service).await;
    sender.send("POST /callbacks/x").await;
    drip(sender).await
}

async fn slow_body(service: std::net::SocketAddr, path: String) -> Option<Answer> {
    let mut sender = Sender::connect(service).await;
    sender.send(head(&path, "content-length: 1000\r\n")).await;
    drip(sender).await
}

async fn time_of_callback(service: &Program) -> Duration {
    let begun = Instant::now();
    service.honest_callback().await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_sender_is_served_among_2000_slow_ones_as_if_they_were_not_there() {
    let _alone = alone().await;
    allow_many_files();
    let setup = || {
        let setup = Setup::new().with_few_files();
        setup.set("SERVICE__HEADER_TIMEOUT", "6s").set("SERVICE__BODY_TIMEOUT", "6s")
    };
    let beset = setup().start().knowing_its_key().await;
    let calm = setup().start().knowing_its_key().await;
    let mut slow = JoinSet::new();
    for index in 0..SLOW_SENDERS {
        if index % 2 == 0 {
            slow.spawn(slow_head(beset.callbacks));
        } else {
            slow.spawn(slow_body(beset.callbacks, beset.fresh_callback().1));
        }
    }
    let open = "finishline_http_connections";
    wait_for("all slow senders to be connected", async || {
        (beset.figure(open, "callbacks").await >= SLOW_SENDERS as f64).then_some(())
    })
    .await;

    let (mut among_slow, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..HONEST {
        among_slow.push(time_of_callback(&beset).await);
        alone.push(time_of_callback(&calm).await);
    }
    assert!(beset.figure(open, "callbacks").await >= SLOW_SENDERS as f64, "cut too early");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (among_slow, alone) = (median(&mut among_slow), median(&mut alone));
    println!("median among {SLOW_SENDERS} slow senders {among_slow:?}, alone {alone:?}");
    assert!(among_slow < alone * 4, "{among_slow:?} among slow ones, {alone:?} alone");

    // Each is cut, and told so.
    while let Some(answer) = slow.join_next().await {
        let answer = answer.expect("no panic").expect("an answer");
        answer.assert_problem(408, "request-timeout");
        assert_eq!(answer.headers["connection"], "close");
    }
}

#[tokio::test]
async fn beyond_the_cap_senders_wait_until_the_slow_ones_are_cut() {
    let setup = Setup::new().set("SERVICE__MAX_CONNECTIONS", "8");
    let service = setup.set("SERVICE__HEADER_TIMEOUT", "1s").start().knowing_its_key().await;
    let mut slow = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..8 {
        let mut sender = Sender::connect(service.callbacks).await;
        sender.send("POST /").await;
        senders.push(sender);
    }
    for mut sender in senders {
        slow.spawn(async move { sender.answer().await });
    }
    // Not refused: it waits, and gets its answer.
    let id = service.honest_callback().await;
    assert!(slow.try_join_next().is_some(), "served before a slow one was cut");
    assert_eq!(service.result(id).await, (200, BODY.into()));
    while let Some(answer) = slow.join_next().await {
        answer.expect("no panic").expect("an answer").assert_problem(408, "request-timeout");
    }
}

#[tokio::test]
async fn a_service_out_of_files_goes_on_when_there_are_some_again() {
    let setup = Setup::new().with_files(100).set("SERVICE__HEADER_TIMEOUT", "2s");
    let service = setup.start().knowing_its_key().await;
    let mut slow = JoinSet::new();
    for _ in 0..100 {
        slow.spawn(slow_head(service.callbacks));
    }
    // The first are cut, which leaves files for the rest, and for an honest one behind them.
    assert!(slow.join_next().await.is_some());
    let id = service.honest_callback().await;
    while slow.join_next().await.is_some() {}
    assert_eq!(service.result(id).await, (200, BODY.into()));
}

#[tokio::test]
async fn silence_within_a_body_ends_it_and_silence_between_requests_the_connection() {
    let setup = Setup::new().set("SERVICE__IDLE_TIMEOUT", "300ms");
    let setup = setup.set("SERVICE__KEEP_ALIVE", "300ms");
    let service = setup.start().knowing_its_key().await;
    let (id, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(head(&path, "content-length: 1000\r\n") + "{").await;
    let answer = sender.answer().await.expect("an answer");
    answer.assert_problem(408, "request-timeout");
    sender.assert_ended().await;
    assert_eq!(service.result(id).await.0, 404);

    let mut sender = Sender::connect(service.callbacks).await;
    sender.post(&path, BODY).await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    sender.assert_ended().await;
}

/// What a load balancer's pool does: it keeps a connection and sends the next callback much later.
#[tokio::test]
async fn a_pooled_connection_outlives_the_limits_on_heads_and_bodies_at_both_doors() {
    const SHORT: Duration = Duration::from_millis(200);
    let setup = ["HEADER", "IDLE", "BODY"]
        .iter()
        .fold(Setup::new(), |setup, part| setup.set(&format!("SERVICE__{part}_TIMEOUT"), "200ms"));
    let service = setup.start().knowing_its_key().await;
    let (id, path) = service.fresh_callback();
    let look = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let kept = async |door| {
        let mut sender = Sender::connect(door).await;
        sender.send(look).await;
        assert_eq!(sender.answer().await.expect("an answer").status, 200);
        let ended = tokio::time::timeout(SHORT * 6, sender.assert_ended()).await;
        assert!(ended.is_err(), "it was cut between two requests");
        sender
    };
    let (mut pooled, mut asked) = (kept(service.callbacks).await, kept(service.api).await);
    pooled.post(&path, BODY).await;
    assert_eq!(pooled.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(id).await, (200, BODY.into()));
    asked.send(look).await;
    assert_eq!(asked.answer().await.expect("an answer").status, 200);
    // A head that has begun is held to its own limit, on a connection that was kept too.
    asked.send("GET /heal").await;
    asked.answer().await.expect("an answer").assert_problem(408, "request-timeout");
}

#[tokio::test]
async fn a_sender_that_waits_for_its_answer_is_not_cut() {
    let setup = ["HEADER", "IDLE", "BODY"]
        .iter()
        .fold(Setup::new(), |setup, part| setup.set(&format!("SERVICE__{part}_TIMEOUT"), "200ms"));
    let service = setup.set("SERVICE__KEEP_ALIVE", "200ms").start().knowing_its_key().await;
    // A body that says nothing leaves the job open.
    let (id, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.post(&path, "{}").await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    let (status, job) = service.get(&format!("/v1/jobs/{id}?wait=2")).await;
    assert_eq!(status, 200);
    assert!(json(&job)["finishedAt"].is_null());
}

/// The senders are here.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may be raised");
}
