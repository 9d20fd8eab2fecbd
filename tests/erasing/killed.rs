//! Killed between an erasure and the emptying of the log: the next start finishes it.

use finishline::domain::ids::JobId;
use serde_json::json;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    marks::files_with,
    support::{Answer, Program, http_client, text, wait_for},
};

#[tokio::test]
async fn a_kill_before_the_log_is_empty_is_made_up_for_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1:9"),
        ("CALLBACKS__INBOX_SECRET", "inbox-secret-of-the-test-0123456789"),
        ("ENGINE__BASE_URL", "http://127.0.0.1:9"),
        ("ENGINE__AUTH__TOKEN_URL", ""),
        ("SPOOL__SIZE", "1MiB"),
    ];
    let mut program = Program::serve(folder.path(), &settings).await;
    let http = http_client();
    let inbox = format!("{}/inbox/inbox-secret-of-the-test-0123456789", program.callbacks);
    let body = json!({"success": true, "word": "mark-killed ".repeat(1_000)}).to_string();
    Answer::of(http.post(inbox).body(body)).await.expect(200);
    let jobs = Answer::of(http.get(format!("{}/v1/jobs", program.api))).await.expect(200).json();
    let id = text(&jobs["jobs"][0]["id"]).to_owned();
    assert!(id.parse::<JobId>().is_ok());

    // Somebody reads, as a backup does, and holds the log.
    let options = SqliteConnectOptions::new().filename(folder.path().join("finishline.db"));
    let mut reader = SqliteConnection::connect_with(&options).await.expect("a connection");
    sqlx::query("begin").execute(&mut reader).await.expect("a transaction");
    sqlx::query("select count(*) from jobs").execute(&mut reader).await.expect("a snapshot");
    let job = format!("{}/v1/jobs/{id}", program.api);
    let erasure = tokio::spawn({
        let request = http.delete(&job);
        async move { request.send().await.is_ok_and(|answer| answer.status() == 200) }
    });
    wait_for("the rows to be gone", async || {
        (Answer::of(http.get(&job)).await.status == 410).then_some(())
    })
    .await;
    program.kill();
    assert!(!erasure.await.expect("no panic"), "no erasure was claimed");
    assert!(!files_with(folder.path(), "mark-killed").is_empty(), "its bytes are still there");

    // Its connection stays: closing the last one would empty the log.
    sqlx::query("rollback").execute(&mut reader).await.expect("the reader lets go");
    let program = Program::serve(folder.path(), &settings).await;
    wait_for("the erasure to be finished", async || {
        files_with(folder.path(), "mark-killed").is_empty().then_some(())
    })
    .await;
    let job = format!("{}/v1/jobs/{id}", program.api);
    Answer::of(http.delete(&job)).await.problem(410, "gone");
    reader.close().await.expect("it closes");
}
