//! The cursor file.

use super::{cursor_of, finished, forward, in_order};
use crate::{
    ask, assert_failed,
    receiver::Receiver,
    support::{Service, wait_for},
};

const ARGS: [&str; 3] = ["forward", "--to", "http://127.0.0.1:9"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_cursor_is_refused_and_left_alone() {
    let service = Service::start().await;
    let file = service.folder().join("finishline-forward.cursor");
    let too_long = " ".repeat(5000);
    for wrong in
        ["", "42", "{\"api\":1}", "\u{0}\u{0}\u{0}", "{\"api\":\"x\",\"after\":-1}", &too_long]
    {
        std::fs::write(&file, wrong).unwrap();
        for more in [&[][..], &["--since", "0"], &["--last", "1"]] {
            let args = [&ARGS, more].concat();
            let ended = ask(&service, &args).await;
            assert_failed(&ended, 2, &["finishline-forward.cursor is not a cursor"]);
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), wrong);
    }
    std::fs::remove_file(&file).unwrap();
    let args = [&ARGS[..], &["--cursor", "no/such/folder/cursor"]].concat();
    assert_failed(&ask(&service, &args).await, 2, &["no/such/folder/cursor"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_belongs_to_one_service() {
    let (service, other) = (Service::start().await, Service::start().await);
    let receiver = Receiver::start().await;
    let process = forward(&service, &receiver, &[]);
    process.says("forwarding to").await;
    process.kill();
    let args = [&ARGS[..], &["--api", &other.api]].concat();
    let ended = ask(&service, &args).await;
    assert_failed(&ended, 2, &[&service.api, &other.api, "--since"]);
    let process = forward(&service, &receiver, &["--api", &other.api, "--since", "0"]);
    let jobs = finished(&other, 1).await;
    process.shows(1).await;
    assert_eq!(in_order(&receiver), jobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_belongs_to_one_process() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let process = forward(&service, &receiver, &[]);
    process.says("forwarding to").await;
    assert_failed(&ask(&service, &ARGS).await, 2, &["in use", "--cursor"]);
    let second = forward(&service, &receiver, &["--cursor", "second.cursor"]);
    second.says("forwarding to").await;
    finished(&service, 1).await;
    process.shows(1).await;
    second.shows(1).await;
    let both = receiver.received();
    assert_eq!(both[0].webhook_id, both[1].webhook_id, "a receiver of both can tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_on_in_a_database_that_began_anew() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let cursor = format!("{{\"api\":\"{}/\",\"after\":1000}}", service.api);
    std::fs::write(service.folder().join("finishline-forward.cursor"), cursor).unwrap();
    let process = forward(&service, &receiver, &[]);
    process.says("before number 1000: another database").await;
    let jobs = finished(&service, 1).await;
    process.shows(1).await;
    assert_eq!(in_order(&receiver), jobs);
    wait_for("the cursor", async || {
        cursor_of(&service)["after"].as_i64().filter(|after| *after < 1000)
    })
    .await;
}
