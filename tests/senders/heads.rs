//! What is refused and how, and the ways in which an honest body may come.

use crate::{
    program::{BODY, Setup},
    wire::{Sender, head},
};

#[tokio::test]
async fn an_oversized_head_is_a_problem_whole_or_not() {
    let service = Setup::new().start();
    let long = format!("x-long: {}\r\n", "y".repeat(20_000));
    let many: String = (0..101).map(|index| format!("x-{index}: y\r\n")).collect();
    let endless = format!("POST / HTTP/1.1\r\nx-long: {}", "y".repeat(100_000));
    for address in [service.callbacks, service.api] {
        for bytes in [head("/", &long), head("/", &many), endless.clone()] {
            let mut sender = Sender::connect(address).await;
            sender.send(bytes).await;
            let answer = sender.answer().await.expect("an answer");
            answer.assert_problem(431, "headers-too-large");
        }
        let mut sender = Sender::connect(address).await;
        let fits: String =
            (0..90).map(|index| format!("x-{index}: {}\r\n", "y".repeat(150))).collect();
        sender.send(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{fits}\r\n")).await;
        assert_eq!(sender.answer().await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_sender_that_asks_first_sends_only_what_is_wanted() {
    let service = Setup::new().start().knowing_its_key().await;
    let asking = |length: usize| format!("content-length: {length}\r\nexpect: 100-continue\r\n");
    let (id, genuine) = service.fresh_callback();
    let forged = genuine.replace("/callbacks/0", "/callbacks/1");

    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(head(&forged, &asking(BODY.len()))).await;
    sender.answer().await.expect("an answer").assert_problem(404, "not-found");
    sender.assert_ended().await;

    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(head(&genuine, &asking(17 * 1024 * 1024))).await;
    sender.answer().await.expect("an answer").assert_problem(413, "payload-too-large");
    sender.assert_ended().await;

    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(head(&genuine, &asking(BODY.len()))).await;
    assert_eq!(sender.answer().await.expect("a word").status, 100);
    sender.send(BODY).await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(id).await, (200, BODY.into()));
}

#[tokio::test]
async fn a_sender_hears_that_its_body_is_too_large_though_it_reads_only_after_sending_all() {
    let service = Setup::new().set("CALLBACKS__MAX_BODY", "1MiB").start().knowing_its_key().await;
    let piece = vec![b' '; 64 * 1024];
    let (_, path) = service.fresh_callback();
    let lengths = ["content-length: 16777216\r\n", "transfer-encoding: chunked\r\n"];
    for (length, is_chunked) in lengths.into_iter().zip([false, true]) {
        let mut sender = Sender::connect(service.callbacks).await;
        sender.send(head(&path, length)).await;
        for _ in 0..256 {
            if is_chunked {
                sender.send("10000\r\n").await;
            }
            sender.send(&piece).await;
            if is_chunked {
                sender.send("\r\n").await;
            }
        }
        let answer = sender.answer().await.expect("an answer");
        answer.assert_problem(413, "payload-too-large");
        assert_eq!(answer.headers["connection"], "close");
    }
    let (_, forged) = (0, "/callbacks/01890000-0000-7000-8000-000000000000/forged");
    let mut sender = Sender::connect(service.callbacks).await;
    sender.post(forged, vec![b' '; 8 * 1024 * 1024]).await;
    sender.answer().await.expect("an answer").assert_problem(404, "not-found");
}

#[tokio::test]
async fn a_body_comes_in_pieces_in_chunks_and_by_an_old_protocol() {
    let service = Setup::new().start().knowing_its_key().await;

    let (chunked, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(head(&path, "transfer-encoding: chunked\r\n")).await;
    for byte in BODY.bytes() {
        sender.send([b"1\r\n", &[byte][..], b"\r\n"].concat()).await;
    }
    sender.send("0\r\n\r\n").await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(chunked).await, (200, BODY.into()));

    // The same connection once more.
    let (kept, path) = service.fresh_callback();
    sender.post(&path, BODY).await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(kept).await, (200, BODY.into()));

    let old = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.0\r\n{more}content-length: {}\r\n\r\n{BODY}", BODY.len())
    };
    let (once, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.send(old(&path, "")).await;
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    sender.assert_ended().await;
    assert_eq!(service.result(once).await, (200, BODY.into()));

    let mut sender = Sender::connect(service.callbacks).await;
    for _ in 0..2 {
        let (again, path) = service.fresh_callback();
        sender.send(old(&path, "connection: keep-alive\r\n")).await;
        let answer = sender.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "keep-alive"));
        assert_eq!(service.result(again).await, (200, BODY.into()));
    }
}

#[tokio::test]
async fn a_sender_that_closes_its_half_still_gets_its_answer() {
    use tokio::io::AsyncWriteExt;
    let service = Setup::new().start().knowing_its_key().await;
    let (id, path) = service.fresh_callback();
    let mut sender = Sender::connect(service.callbacks).await;
    sender.post(&path, BODY).await;
    sender.stream.shutdown().await.expect("half is closed");
    assert_eq!(sender.answer().await.expect("an answer").status, 200);
    assert_eq!(service.result(id).await, (200, BODY.into()));
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_with_the_headers_of_every_answer() {
    let service = Setup::new().start();
    let many: String = (0..600).map(|index| format!("x-{index}: y\r\n")).collect();
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for address in [service.callbacks, service.api] {
        for (bad, status) in [
            ("nonsense\r\n\r\n", 400),
            ("GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n", 400),
            ("GET /healthz HTTP/1.1\r\nno header\r\n\r\n", 400),
            ("GET /healthz HTTP/1.1\r\nna me: x\r\n\r\n", 400),
            ("GET /\u{1} HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
            ("POST /healthz HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
            ("POST /healthz HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
            (&*head("/", &many), 431),
        ] {
            for before in ["", good] {
                let mut sender = Sender::connect(address).await;
                sender.send(format!("{before}{bad}")).await;
                if !before.is_empty() {
                    assert_eq!(sender.answer().await.expect("an answer").status, 200, "{bad:?}");
                }
                let answer = sender.answer().await.unwrap_or_else(|| panic!("no answer: {bad:?}"));
                assert_eq!(answer.status, status, "{bad:?}: {answer:?}");
                for (name, value) in [
                    ("connection", "close"),
                    ("cache-control", "no-store"),
                    ("x-content-type-options", "nosniff"),
                    ("referrer-policy", "no-referrer"),
                    ("cross-origin-resource-policy", "same-origin"),
                    (
                        "content-security-policy",
                        "default-src 'none'; frame-ancestors 'none'; sandbox",
                    ),
                ] {
                    let given = answer.headers.get(name).map(String::as_str);
                    assert_eq!(given, Some(value), "{bad:?}: {name}");
                }
                assert!(answer.headers.contains_key("x-request-id"), "{bad:?}");
                sender.assert_ended().await;
            }
        }
    }
}
