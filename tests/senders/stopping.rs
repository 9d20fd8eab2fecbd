//! Senders that are at it when the service stops.

use std::net::TcpListener;

use rustix::{
    net::{Shutdown, shutdown},
    process::Signal,
};
use sqlx::Row;

use crate::{
    program::{BODY, Program, Setup, wait_for},
    wire::{Sender, head},
};

/// A callback whose body the service waits for.
async fn begin_callback(service: &Program) -> (finishline::domain::ids::JobId, Sender) {
    let (id, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    let more = format!("content-length: {}\r\nexpect: 100-continue\r\n", BODY.len());
    sender.send(head(&path, &more)).await;
    assert_eq!(sender.answer().await.expect("a word").status, 100);
    (id, sender)
}

async fn stopped_accepting(service: &Program) {
    wait_for("the doors to close", async || {
        Sender::try_connect(service.callbacks).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_in_flight_at_a_stop_is_answered_and_on_disk() {
    let mut service = Setup::new().start().knowing_its_key().await;
    let mut in_flight = Vec::new();
    for _ in 0..100 {
        in_flight.push(begin_callback(&service).await);
    }
    let mut idle = Sender::connect(service.callbacks).await;
    idle.post(&service.fresh_callback().1, BODY).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    // A connection on which nothing has come yet, and one with half a head.
    let (fresh_id, fresh_path) = service.fresh_callback();
    let mut fresh = Sender::connect(service.callbacks).await;
    let (half_id, half_path) = service.fresh_callback();
    let mut half = Sender::connect(service.callbacks).await;
    let half_request = head(&half_path, &format!("content-length: {}\r\n", BODY.len())) + BODY;
    half.send(&half_request[..40]).await;
    wait_for("all to be connected", async || {
        let open = service.figure("finishline_http_connections", "callbacks").await;
        (open == 103.0).then_some(())
    })
    .await;

    service.signal(Signal::TERM);
    stopped_accepting(&service).await;
    idle.assert_ended().await;
    fresh.post(&fresh_path, BODY).await;
    half.send(&half_request[40..]).await;
    in_flight.extend([(fresh_id, fresh), (half_id, half)]);
    let mut answered = Vec::new();
    for (index, (id, mut sender)) in in_flight.into_iter().enumerate() {
        if index < 100 {
            sender.send(BODY).await;
        }
        let answer = sender.answer().await.expect("an answer to each");
        assert_eq!(answer.status, 200);
        sender.assert_ended().await;
        answered.push(id);
    }
    assert_eq!(service.ended().await, Some(0));
    let mut database = service.database().await;
    for id in answered {
        let row = sqlx::query(
            "select delivery_bodies.body from jobs
             join delivery_bodies on delivery_bodies.delivery_seq = jobs.result_delivery
             where jobs.id = ?",
        );
        let row = row.bind(id.0).fetch_one(&mut database).await.expect("it is on disk");
        assert_eq!(row.get::<Vec<u8>, _>("body"), BODY.as_bytes());
    }
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_its_grace() {
    let mut service =
        Setup::new().set("SERVICE__SHUTDOWN_GRACE", "200ms").start().knowing_its_key().await;
    let (_, mut sender) = begin_callback(&service).await;
    service.signal(Signal::TERM);
    assert_eq!(service.ended().await, Some(0));
    assert!(sender.answer().await.is_none());
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let setup = Setup::new().set("SERVICE__SHUTDOWN_GRACE", "1h");
        let mut service = setup.start().knowing_its_key().await;
        let _in_flight = begin_callback(&service).await;
        service.signal(signal);
        stopped_accepting(&service).await;
        service.signal(signal);
        assert_eq!(service.ended().await, Some(code));
    }
}

#[tokio::test]
async fn a_listener_that_dies_ends_the_process_with_failure() {
    let [callbacks, api] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let mut service = Setup::new().with_sockets(&callbacks, &api, "callbacks:api").start();
    shutdown(&callbacks, Shutdown::Both).expect("a socket");
    assert_eq!(service.ended().await, Some(1));
}
