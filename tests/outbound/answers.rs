//! What comes back: failures told without giving anything away, bodies with an upper limit,
//! URLs without their credentials. The invariant: no message holds a part of the URL's secrets.

use std::time::Duration;

use finishline::outbound::{Outbound, ReadError, describe, is_refused, read_capped, redact};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{LIFTED, OK, Server, failure, names, outbound, url};

#[tokio::test]
async fn failures_are_described_alike_and_without_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let lookup = names("empty.example", &[]);
    let lifted = Outbound::with_resolver(LIFTED, &[], lookup).unwrap();
    let plain = Server::local("not TLS at all").await;
    for address in [
        url(&format!("http://127.0.0.1:{closed}/")),
        url(&format!("http://unknown.example:{closed}/")),
        url(&format!("http://empty.example:{closed}/")),
        url(&format!("https://127.0.0.1:{}/", plain.port)),
    ] {
        let error = failure(&lifted, &address).await;
        assert_eq!(describe(&error), "not reachable", "{address}: {error:?}");
        assert!(!is_refused(&error));
    }
    let hangs_up = Server::local("").await;
    assert_eq!(describe(&failure(&lifted, &hangs_up.url("127.0.0.1")).await), "connection lost");
    assert_eq!(hangs_up.connections(), 1, "a request is never repeated");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(&format!("http://{}/", silent.local_addr().unwrap()));
    let request = lifted.foreign(Method::GET, &address).unwrap().timeout(Duration::from_millis(50));
    assert_eq!(describe(&request.send().await.unwrap_err()), "timed out");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_cap() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nabc";
    let huge = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\nabc";
    for (answer, cap, expected) in [
        (chunked, 8, Ok("abcdefgh")),
        (chunked, 7, Err(ReadError::TooLarge)),
        (chunked, 0, Err(ReadError::TooLarge)),
        (OK, 2, Ok("ok")),
        (OK, 1, Err(ReadError::TooLarge)),
        (cut, 8, Err(ReadError::Lost)),
        (huge, 8, Err(ReadError::TooLarge)),
    ] {
        let address = Server::local(answer).await.url("127.0.0.1");
        let response = outbound(LIFTED).configured().get(address).send().await.unwrap();
        let body = read_capped(response, cap).await;
        assert_eq!(
            body.as_deref(),
            expected.map(str::as_bytes).as_ref().map(|body| *body),
            "{answer} {cap}"
        );
    }
}

#[tokio::test]
async fn a_body_that_stalls_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let request = outbound(LIFTED).configured().get(address);
    let sending = request.timeout(Duration::from_secs(1)).send();
    let stalling = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nabc";
        stream.write_all(head).await.unwrap();
        stream
    };
    let (response, _open) = tokio::join!(sending, stalling);
    let body = read_capped(response.unwrap(), 8).await;
    assert_eq!(body, Err(ReadError::TimedOut));
}

#[test]
fn a_redacted_url_keeps_no_credential() {
    for (text, expected) in [
        ("https://me:pw@host.example:8443/a/b?token=1#end", "https://host.example:8443/a/b"),
        ("http://[::1]:80/@x?y", "http://[::1]/@x"),
        ("https://me@host.example", "https://host.example/"),
        ("data:text/plain,secret", "data:…"),
        ("no address ?token=1", "unreadable address"),
    ] {
        assert_eq!(redact(text), expected);
    }
}
