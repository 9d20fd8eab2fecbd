//! More at once than there is memory for.

use tokio::task::JoinSet;

use crate::{
    program::{Setup, alone, wait_for},
    wire::{Sender, head},
};

const MIB: usize = 1024 * 1024;
const SENDERS: usize = 200;
const BUDGET: &str = "64MiB";

/// What the process may have at most: the budget, a copy of it on its way into the database, and
/// what it has anyway. The bodies together are ten times that.
const MOST_BYTES: u64 = 320 * MIB as u64;

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_and_no_2xx_is_lost_when_large_bodies_come_all_at_once() {
    let _alone = alone().await;
    let service = Setup::new().set("CALLBACKS__MEMORY", BUDGET).start().knowing_its_key().await;
    let mut body = br#"{"success": true, "padding": ""#.to_vec();
    body.resize(16 * MIB - 2, b'x');
    body.extend(br#""}"#);
    let body: &'static [u8] = body.leak();
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (id, path) = service.fresh_callback();
        let address = service.callbacks;
        senders.spawn(async move {
            let mut sender = Sender::connect(address).await;
            let length = format!("content-length: {}\r\n", body.len());
            sender.send(head(&path, &length)).await;
            (id, sender.send_until_answered(body).await)
        });
    }
    let mut stored = Vec::new();
    let mut refused = 0;
    while let Some(ended) = senders.join_next().await {
        let (id, answer) = ended.expect("no panic");
        let answer = answer.expect("an answer to each");
        match answer.status {
            200 => stored.push(id),
            _ => {
                answer.assert_problem(503, "overloaded");
                assert!(answer.headers.contains_key("retry-after"));
                refused += 1;
            }
        }
    }
    let peak = service.peak_memory();
    println!("{} stored, {refused} refused, peak {} MiB", stored.len(), peak / MIB as u64);
    assert!(refused > 0, "the budget was never used up");
    assert!(peak < MOST_BYTES, "{} MiB", peak / MIB as u64);
    // A small one finds room meanwhile and after.
    service.honest_callback().await;
    for id in stored {
        let (status, result) = service.result(id).await;
        assert!(status == 200 && result == body, "{id}: {status}");
    }
    let peak = service.peak_memory();
    assert!(peak < MOST_BYTES, "{} MiB", peak / MIB as u64);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_gives_its_memory_back() {
    let setup = Setup::new().set("CALLBACKS__MAX_BODY", "8MiB").set("CALLBACKS__MEMORY", "16MiB");
    let service = setup.set("SERVICE__BODY_TIMEOUT", "3s").start().knowing_its_key().await;
    let mut body = br#"{"success": true, "padding": ""#.to_vec();
    body.resize(8 * MIB - 2, b'x');
    body.extend(br#""}"#);
    let (id, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.post(&path, &body).await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);

    let request = format!("GET /v1/jobs/{id}/result HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut idlers = Vec::new();
    for _ in 0..2 {
        let mut idler = Sender::connect(service.api).await;
        idler.send(&request).await;
        // The head is there, so the memory is taken; the rest is left.
        idler.stream.readable().await.expect("a socket");
        idlers.push(idler);
    }
    let mut reader = Sender::connect(service.api).await;
    reader.send(&request).await;
    reader.answer().await.expect("an answer").assert_problem(503, "overloaded");
    // Callbacks have memory of their own.
    service.honest_callback().await;
    wait_for("both to be cut", async || {
        (service.figure("finishline_http_connections_cut_total", "api").await == 2.0).then_some(())
    })
    .await;
    for mut idler in idlers {
        assert!(idler.answer().await.is_none(), "its answer was cut short");
    }
    assert_eq!(service.result(id).await, (200, body));
}
