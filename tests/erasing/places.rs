//! Every place: rows, pages, log, spool, file store, answers of receivers.

use std::fs;

use axum::{Router, http::StatusCode};
use serde_json::json;

use crate::{
    marks::{assert_gone, assert_planted, files_with, marks_of, plant},
    support::*,
};

#[tokio::test]
async fn marked_bytes_of_an_erased_job_are_in_no_file_and_those_of_others_stay() {
    let service = Service::start().await;
    let [one, two, kept] = ["one", "two", "kept"];
    let job = plant(&service, one).await;
    let id = text(&job["id"]);
    // In the Engine's reply and nowhere else: what was sent had no such id.
    let of_reply = [text(&job["engineJobId"]).to_owned()];
    plant(&service, two).await;
    plant(&service, kept).await;
    for tail in [one, two, kept] {
        assert_planted(service.folder(), &marks_of(tail));
    }
    assert_planted(service.folder(), &of_reply);
    let erased = service.delete(&format!("/v1/jobs/{id}")).await.expect(200).json();
    assert_eq!(erased, json!({"erased": 1}));
    assert_gone(service.folder(), &marks_of(one));
    assert_gone(service.folder(), &of_reply);
    let erased = service.delete("/v1/jobs?endUserId=mark-user-two").await.expect(200).json();
    assert_eq!(erased, json!({"erased": 1}));
    assert_gone(service.folder(), &marks_of(two));
    assert_planted(service.folder(), &marks_of(kept));
    let late = service.post_to(&service.callback_url(id), r#"{"late": "mark-late"}"#).await;
    late.problem(410, "gone");
    assert_gone(service.folder(), &["mark-late".into()]);
}

#[tokio::test]
async fn what_a_receiver_answered_and_where_it_was_goes_with_the_job() {
    let refusing =
        Router::new().fallback(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "mark-answer") });
    let receiver = serve(refusing).await.replace("127.0.0.1", "localhost");
    let service = Setup::new()
        .set("RELAY__ALLOWED_HOSTS", r#"["*"]"#)
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("OUTBOUND__ALLOW_HTTP", true)
        .start()
        .await;
    let webhook = format!("{receiver}/mark-path");
    let job = service.submitted(&ready_job_with(json!({"finishWebhook": webhook}))).await;
    service.finish(&job).await;
    let marks = ["mark-answer".to_owned(), "mark-path".to_owned(), receiver];
    wait_for("the refusal to be on record", async || {
        (!files_with(service.folder(), "mark-answer").is_empty()).then_some(())
    })
    .await;
    assert_planted(service.folder(), &marks);
    service.delete(&format!("/v1/jobs/{}", text(&job["id"]))).await.expect(200);
    assert_gone(service.folder(), &marks);
}

#[tokio::test]
async fn copies_go_with_their_job_or_the_erasure_is_not_claimed() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    let url = format!("file://{}", files.display());
    let service = Setup::new().set("MIRROR__STORE", &url).start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]).to_owned();
    let result = json!({"success": true, "outputFiles": {"meshes": [{
        "status": "Available", "url": "https://store.invalid/x"}]}});
    service.post_to(&service.callback_url(&id), result.to_string()).await.expect(200);
    // A copy, and one that is half made.
    let of_job = files.join(&id);
    fs::create_dir_all(&of_job).expect("the job's folder");
    fs::write(of_job.join("0-meshes-0.stl"), "mark-copy").expect("a copy");
    fs::write(of_job.join("0-meshes-0.stl#1"), "mark-half").expect("half a copy");

    // A file stands where the folder was: the store fails.
    let aside = folder.path().join("aside");
    fs::rename(&files, &aside).expect("moved");
    fs::write(&files, "").expect("a file");
    let refused = service.delete(&format!("/v1/jobs/{id}")).await;
    refused.problem(503, "file-store-unavailable");
    service.get(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
    assert_planted(folder.path(), &["mark-copy".into(), "mark-half".into()]);

    fs::remove_file(&files).expect("removed");
    fs::rename(&aside, &files).expect("moved back");
    service.delete(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
    assert_gone(folder.path(), &["mark-copy".into(), "mark-half".into(), id]);
}
