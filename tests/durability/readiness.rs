//! `/readyz` of both doors: one probe for all who ask, and what each door promises.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::{
    failing_store::{FailingStore, Failure, Plan},
    support::*,
};

const KEY: &str = "a-key-of-this-test-0123456789";

/// Askers at once.
const CROWD: usize = 1_000;

/// Each probe fails while it is so, which counts the probes.
fn no_probe() -> Plan {
    Plan::always(Failure::Unavailable).only("probe")
}

/// A service with a key, whose store fails on command.
async fn service() -> (Service, Arc<FailingStore>) {
    let keys = json!([{"name": "all", "key": KEY}]);
    let (setup, store) = FailingStore::in_setup(Setup::new().set("API__KEYS", keys));
    (setup.start().await, store())
}

async fn ask_with_key(service: &Service) -> Answer {
    Answer::of(service.request(Method::GET, "/readyz").bearer_auth(KEY)).await
}

/// How many probes a crowd of askers at `door` made begin, at the most one for each second.
async fn crowd(service: &Service, store: &FailingStore, door: &str, key: Option<&str>) -> u64 {
    let before = store.failures();
    let ask = async || {
        let mut request = service.request_to(Method::GET, &format!("{door}/readyz"));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        Answer::of(request).await
    };
    for answer in join_all((0..CROWD).map(|_| ask())).await {
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        assert_eq!(answer.json()["checks"].is_null(), key.is_none(), "{}", answer.text());
    }
    store.failures() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_askers_shares_one_probe_a_second() {
    let (service, store) = service().await;
    store.fail(no_probe());
    for (door, key) in [(&service.api, None), (&service.api, Some(KEY)), (&service.callbacks, None)]
    {
        let begun = Instant::now();
        let probes = crowd(&service, &store, door, key).await;
        let seconds = begun.elapsed().as_secs();
        assert!(probes <= seconds + 2, "{probes} probes in {seconds} s at {door}, key {key:?}");
    }
}

#[tokio::test]
async fn who_hangs_up_makes_no_room_for_another_probe() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    let (service, store) = service().await;
    store.fail(no_probe());
    let begun = Instant::now();
    let address = service.callbacks.strip_prefix("http://").expect("http");
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head).await.expect("it is sent");
    }
    let seconds = begun.elapsed().as_secs();
    assert!(store.failures() <= seconds + 2, "{} in {seconds} s", store.failures());
}

#[tokio::test]
async fn without_a_key_the_answer_is_that_of_the_last_probe() {
    let (service, store) = service().await;
    let bare = service.get("/readyz").await.expect(200);
    assert_eq!(bare.json(), json!({"status": "ready"}));
    store.fail(no_probe());
    wait_for("a new probe for the key", async || {
        (ask_with_key(&service).await.status == 503).then_some(())
    })
    .await;
    let refused = service.get("/readyz").await.expect(503);
    assert_eq!(refused.json(), json!({"status": "not ready"}));
    let full = ask_with_key(&service).await.expect(503).json();
    assert_eq!(full["checks"]["database"]["ok"], false);
    store.heal();
    wait_for("a new probe for the key", async || {
        (ask_with_key(&service).await.status == 200).then_some(())
    })
    .await;
    service.get("/readyz").await.expect(200);
    store.fail(no_probe());
    let probes = store.failures();
    for _ in 0..100 {
        service.get("/readyz").await.expect(200);
    }
    assert!(store.failures() - probes <= 1, "the service probes by itself, every ten seconds");
}

#[tokio::test]
async fn the_door_to_the_internet_is_ready_while_a_callback_would_be_kept() {
    let folder = async |spool: &str| {
        let (setup, store) = FailingStore::in_setup(Setup::new().set("SPOOL__SIZE", spool));
        (setup.start().await, store())
    };
    let ready = async |service: &Service| {
        let answer = service.get_from(&service.callbacks, "/readyz").await;
        let word = if answer.status == 200 { "ready" } else { "not ready" };
        assert_eq!(answer.json(), json!({"status": word}), "no details");
        answer.status
    };
    let (with_spool, store) = folder("1MiB").await;
    assert_eq!(ready(&with_spool).await, 200);
    store.fail(Plan::always(Failure::Unavailable));
    wait_for("the api's door to notice", async || {
        (with_spool.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(ready(&with_spool).await, 200, "the spool would keep it");
    let id = finishline::domain::ids::JobId::new(with_spool.clock.now());
    let signature = finishline::domain::signature::sign(&with_spool.store().signing_key(), id);
    let url = format!("{}/callbacks/{id}/{signature}", with_spool.callbacks);
    let body = format!(r#"{{"success":true,"pad":"{}"}}"#, "x".repeat(60_000));
    // Until the spool is full.
    wait_for("the spool to be full", async || {
        let answer = with_spool.post_to(&url, body.clone()).await;
        (answer.status == 503).then_some(())
    })
    .await;
    assert_eq!(ready(&with_spool).await, 503, "there is no room in it");
    store.heal();
    wait_for("room again", async || (ready(&with_spool).await == 200).then_some(())).await;

    let (without, store) = folder("0").await;
    assert_eq!(ready(&without).await, 200);
    store.fail(no_probe());
    wait_for("the door to notice", async || (ready(&without).await == 503).then_some(())).await;
    store.heal();
    wait_for("the door to notice", async || (ready(&without).await == 200).then_some(())).await;
}

#[tokio::test]
async fn on_a_merged_door_readiness_is_the_api_s() {
    let keys = json!([{"name": "all", "key": KEY}]);
    let setup = Setup::new().set("API__KEYS", keys).set("API__LISTEN", "same");
    let (setup, store) = FailingStore::in_setup(setup);
    let (service, store) = (setup.start().await, store());
    store.fail(Plan::always(Failure::Unavailable));
    let full = ask_with_key(&service).await.expect(503).json();
    assert_eq!(full["checks"]["spool"]["ok"], true, "a spool does not make up for the database");
}
