//! Senders that break off.

use crate::{
    program::{BODY, Setup, wait_for},
    wire::{Sender, head},
};

#[tokio::test]
async fn a_reset_at_any_place_leaves_nothing_half_stored() {
    let service = Setup::new().start().knowing_its_key().await;
    let mut whole = Vec::new();
    let mut broken = Vec::new();
    for is_chunked in [false, true] {
        let place_count = request("/", is_chunked).len() + 112;
        for place in 0..=place_count {
            let (id, path) = service.fresh_callback();
            let request = request(&path, is_chunked);
            let place = place.min(request.len());
            let mut sender = Sender::connect(service.callbacks).await;
            sender.send(&request.as_bytes()[..place]).await;
            // In the last places of chunks only the end mark is missing.
            if place == request.len() {
                whole.push(id)
            } else {
                broken.push(id)
            }
            sender.reset();
        }
    }
    service.honest_callback().await;
    wait_for("all connections to end", async || {
        (service.figure("finishline_http_connections", "callbacks").await == 0.0).then_some(())
    })
    .await;
    for id in broken {
        assert_eq!(service.result(id).await.0, 404, "{id}");
    }
    // A reset may overtake what was sent before it; what is on record is whole.
    for id in whole {
        let (status, body) = service.result(id).await;
        assert!(status == 404 || (status == 200 && body == BODY.as_bytes()), "{id}: {status}");
    }
    service.honest_callback().await;
}

fn request(path: &str, is_chunked: bool) -> String {
    if !is_chunked {
        return head(path, &format!("content-length: {}\r\n", BODY.len())) + BODY;
    }
    let (first, second) = BODY.split_at(10);
    let chunks = format!("a\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
    head(path, "transfer-encoding: chunked\r\n") + &chunks
}
