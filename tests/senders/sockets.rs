//! Sockets that are handed over and stay open while the service restarts.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    program::{BODY, Setup, fresh_callback, wait_for},
    wire::Sender,
};

fn sockets(address: &str) -> [TcpListener; 2] {
    [(); 2].map(|()| TcpListener::bind(address).expect("a port"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_sockets_handed_over_refuses_nobody() {
    let [api, callbacks] = sockets("127.0.0.1:0");
    let service = Setup::new().with_sockets(&api, &callbacks, "api:callbacks").start();
    let service = service.knowing_its_key().await;
    assert_eq!(service.callbacks, callbacks.local_addr().expect("an address"));
    assert_eq!(service.api, api.local_addr().expect("an address"));

    // One after the other all the while, each on a connection of its own.
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let (address, key) = (service.callbacks, service.key);
    let (over, counted) = (is_over.clone(), answered.clone());
    let steady = tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            let mut sender = Sender::connect(address).await;
            sender.post(&fresh_callback(&key).1, BODY).await;
            let answer = sender.answer().await.expect("an answer");
            assert_eq!(answer.status, 200);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let some_are_answered = async || {
        let before = answered.load(Ordering::Relaxed);
        wait_for("callbacks to be answered", async || {
            (answered.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    };
    some_are_answered().await;
    let mut restarting = service.stopped().await;
    for _ in 0..2 {
        // Nobody listens now: they wait.
        let mut waiting = Vec::new();
        for socket in [&callbacks, &api] {
            for _ in 0..20 {
                let address = socket.local_addr().expect("an address");
                let mut sender = Sender::connect(address).await;
                sender.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                waiting.push(sender);
            }
        }
        let service = restarting.with_sockets(&callbacks, &api, "first:second").start();
        for mut sender in waiting {
            assert_eq!(sender.answer().await.expect("an answer").status, 200);
        }
        some_are_answered().await;
        restarting = service.stopped().await;
    }
    let _service = restarting.with_sockets(&callbacks, &api, "callbacks:api").start();
    is_over.store(true, Ordering::Relaxed);
    steady.await.expect("no sender is refused");
}

#[tokio::test]
async fn a_socket_that_others_reach_is_never_open_however_it_came() {
    let [callbacks, _] = sockets("127.0.0.1:0");
    let api = TcpListener::bind("0.0.0.0:0").expect("a port");
    let started = Setup::new().with_sockets(&callbacks, &api, "callbacks:api").try_start();
    let (code, log) = started.err().expect("it does not start");
    assert_eq!(code, Some(1));
    assert!(log.contains("api.open_on_loopback is true, but the api listens on 0.0.0.0"), "{log}");
}

#[tokio::test]
async fn a_socket_of_no_use_stops_the_start() {
    let [callbacks, other] = sockets("127.0.0.1:0");
    let started = Setup::new().with_sockets(&callbacks, &other, "callbacks:metrics").try_start();
    let (code, log) = started.err().expect("it does not start");
    assert_eq!(code, Some(1));
    assert!(log.contains("2 sockets were handed over, but 1 are of use"), "{log}");
}
