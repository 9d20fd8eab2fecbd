//! Connections that run out, and senders who go on after their refusal.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{
    program::{BODY, Program, Setup},
    wire::{Sender, head},
};

const MIB: usize = 1024 * 1024;

/// Connections that say nothing, more than the door has.
const CROWD: usize = 40;

/// Shorter than any limit on heads and idling here, and longer than a second on a slow machine.
const SOON: Duration = Duration::from_secs(6);

async fn crowded() -> Program {
    let setup = Setup::new().set("SERVICE__MAX_CONNECTIONS", "16");
    let setup = setup.set("SERVICE__HEADER_TIMEOUT", "60s").set("SERVICE__KEEP_ALIVE", "60s");
    setup.start().knowing_its_key().await
}

#[tokio::test]
async fn silent_connections_make_room_at_both_doors_when_there_is_none_left() {
    let service = crowded().await;
    for door in [service.callbacks, service.api] {
        let mut silent = Vec::new();
        for _ in 0..CROWD {
            silent.push(Sender::connect(door).await);
        }
        let begun = Instant::now();
        let mut sender = Sender::connect(door).await;
        sender.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(sender.answer().await.expect("an answer").status, 200);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        silent.swap_remove(0).assert_ended().await;
    }
}

#[tokio::test]
async fn connections_between_two_requests_make_room_too() {
    let service = crowded().await;
    let mut idle = JoinSet::new();
    for _ in 0..CROWD {
        let mut sender = Sender::connect(service.callbacks).await;
        idle.spawn(async move {
            sender.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            assert_eq!(sender.answer().await.expect("an answer").status, 200);
            sender
        });
    }
    let begun = Instant::now();
    // Those beyond the first have had their turn only because the first were let go.
    let idle = idle.join_all().await;
    service.honest_callback().await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    drop(idle);
}

#[tokio::test]
async fn without_a_crowd_a_silent_connection_has_its_time() {
    let service = Setup::new().start().knowing_its_key().await;
    let mut silent = Sender::connect(service.callbacks).await;
    let ended = tokio::time::timeout(Duration::from_secs(3), silent.assert_ended()).await;
    assert!(ended.is_err(), "it was cut");
    let (id, path) = service.fresh_callback();
    silent.post(&path, BODY).await;
    assert_eq!(silent.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(id).await.0, 200);
}

#[tokio::test]
async fn a_refused_sender_is_not_read_to_the_end_of_what_it_has() {
    // More than the buffers of two sockets hold beside the mebibyte that is read.
    const LENGTH: usize = 64 * MIB;
    let service = Setup::new().start().knowing_its_key().await;
    let (_, genuine) = service.fresh_callback();
    let forged = format!("/callbacks/01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55/{}", "A".repeat(43));
    let doors = [
        (service.callbacks, forged.as_str(), 404),
        (service.callbacks, &genuine, 413),
        (service.callbacks, "/inbox/wrong", 404),
        (service.api, "/v1/nothing", 404),
        (service.api, "/v1/jobs", 413),
    ];
    for (door, path, status) in doors {
        let mut sender = Sender::connect(door).await;
        let length = format!("content-type: application/json\r\ncontent-length: {LENGTH}\r\n");
        sender.send(head(path, &length)).await;
        let answer = sender.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{path}");
        let rest = vec![b'x'; LENGTH];
        let sent = tokio::time::timeout(SOON, sender.stream.write_all(&rest)).await;
        assert!(sent.expect("an end").is_err(), "{path}: all of it was read");
    }
}
