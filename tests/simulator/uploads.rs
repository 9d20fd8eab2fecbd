//! Uploads of inputs: kept, checked, refused, broken.

use std::time::Duration;

use axum::body::Bytes;
use finishline::simulator::{FaultRate, Simulator};
use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{call, json_of, ready_job, start, submit, within};

/// The upload link of a new job.
async fn upload_link(simulator: &Simulator) -> String {
    let mut job = ready_job("http://127.0.0.1:9/");
    job["inputFiles"] = json!({"cbct": {"extension": ".dcm"}});
    let reply = json_of(submit(simulator, &job).await).await;
    reply["inputFiles"]["cbct"]["uploadUrl"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_link_is_good_until_its_life_ends_and_only_as_it_was_signed() {
    let simulator = start(|options| options.link_life = Duration::from_secs(2)).await;
    let link = &upload_link(&simulator).await;
    assert_eq!(call(Method::PUT, link, "", "scan").await.status(), 200);
    let forged = link.replace("expires=", "expires=9");
    assert_eq!(call(Method::PUT, &forged, "", "scan").await.status(), 403);
    within(async { while call(Method::PUT, link, "", "scan").await.status() != 403 {} }).await;
}

#[tokio::test]
async fn a_large_upload_keeps_its_length_its_digest_and_its_beginning() {
    let simulator = start(|_| {}).await;
    let link = upload_link(&simulator).await;
    let scan: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251) as u8).collect();
    assert_eq!(call(Method::PUT, &link, "", scan.clone()).await.status(), 200);
    let upload = simulator.jobs()[0].inputs[0].upload.clone().unwrap();
    assert_eq!(upload.size_bytes, 20_000_000);
    let digest: String = Sha256::digest(&scan).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(upload.sha256, digest);
    assert_eq!(upload.content, scan[..8 * 1024 * 1024]);
}

#[tokio::test]
async fn an_upload_link_that_expired_early_stays_so_and_another_works() {
    let simulator = start(|options| options.expire_uploads = FaultRate::First(1)).await;
    let link = upload_link(&simulator).await;
    for _ in 0..2 {
        assert_eq!(call(Method::PUT, &link, "", "scan").await.status(), 403);
    }
    let link = upload_link(&simulator).await;
    assert_eq!(call(Method::PUT, &link, "", "scan").await.status(), 200);
}

#[tokio::test]
async fn the_first_uploads_of_every_input_are_refused_or_cut_as_told() {
    let simulator = start(|options| {
        options.upload_answer = Some(500);
        options.upload_answer_rate = FaultRate::FirstOfEach(1);
        options.cut_uploads = FaultRate::FirstOfEach(1);
        options.require_content_length = true;
    })
    .await;
    for position in 0..2 {
        let link = upload_link(&simulator).await;
        let scan = Bytes::from(vec![7; 4_000_000]);
        assert_eq!(call(Method::PUT, &link, "", "scan").await.status(), 500);
        let cut = reqwest::Client::new().put(&link).body(scan.clone()).send();
        assert!(within(cut).await.is_err());
        let stored = || simulator.jobs()[position].inputs[0].upload.clone();
        assert!(stored().is_none(), "what broke leaves nothing");
        let unsized_body = Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>("scan")]));
        assert_eq!(call(Method::PUT, &link, "", unsized_body).await.status(), 411);
        simulator.set(|options| options.throttle = 40_000_000);
        assert_eq!(call(Method::PUT, &link, "", scan).await.status(), 200);
        assert_eq!(stored().unwrap().size_bytes, 4_000_000);
    }
}
