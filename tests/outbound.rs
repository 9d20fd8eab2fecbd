//! The promises of `finishline::outbound`, driven over real sockets. The invariant: whatever the
//! spelling, the name or the redirect, a trap on loopback is never connected to by a foreign URL.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "outbound/answers.rs"]
mod answers;
#[path = "outbound/hosts.rs"]
mod hosts;
#[path = "outbound/leaving.rs"]
mod leaving;
#[path = "outbound/support.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use finishline::outbound::{Outbound, Permissions, Refused, describe, is_refused};
use reqwest::Method;

use hosts::{FORBIDDEN_ADDRESSES, FORBIDDEN_SPELLINGS, PUBLIC};
use support::{GUARDED, HTTP, LIFTED, Names, OK, Server, failure, names, outbound, status, url};

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_connected_to() {
    let mut traps = vec![Server::local(OK).await];
    traps.extend(Server::answering("[::1]", OK).await);
    let guarded = outbound(HTTP);
    let mut forms = 0;
    for host in FORBIDDEN_ADDRESSES.split_whitespace().chain(FORBIDDEN_SPELLINGS.split_whitespace())
    {
        forms += 1;
        for trap in &traps {
            let reason = guarded.check(&trap.url(host)).expect_err(host);
            assert!(matches!(reason, Refused::Address | Refused::LocalName), "{host}: {reason:?}");
            assert_eq!(guarded.foreign(Method::GET, &trap.url(host)).map(|_| ()), Err(reason));
        }
    }
    assert!(forms >= 150, "{forms}");
    for trap in traps {
        assert_eq!(trap.connections(), 0);
        let reached = status(&outbound(LIFTED), &trap.url(trap.host)).await;
        assert_eq!((reached, trap.connections()), (200, 1), "the trap works");
    }
}

#[tokio::test]
async fn no_name_leads_to_a_forbidden_address() {
    let trap = Server::local(OK).await;
    let lookup = Arc::new(Names::default());
    let guarded = Outbound::with_resolver(HTTP, &[], lookup.clone()).unwrap();
    for host in FORBIDDEN_ADDRESSES.split_whitespace() {
        let address = host.trim_matches(['[', ']']);
        for found in
            [&[address][..], &[address, "8.8.8.8"], &["8.8.8.8", "2606:4700:4700::1111", address]]
        {
            lookup.set("internal.example", found);
            let error = failure(&guarded, &trap.url("internal.example")).await;
            assert!(is_refused(&error), "{found:?}: {error:?}");
            assert_eq!(describe(&error), "its address is not allowed");
        }
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn a_name_that_the_system_resolves_to_loopback_is_refused() {
    let trap = Server::local(OK).await;
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let local = hosts.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    for name in local.flat_map(|line| line.split_whitespace().skip(1)) {
        if outbound(HTTP).check(&trap.url(name)).is_ok() {
            assert!(is_refused(&failure(&outbound(HTTP), &trap.url(name)).await), "{name}");
        }
    }
    assert_eq!(trap.connections(), 0);
}

#[test]
fn addresses_on_the_internet_pass() {
    for host in PUBLIC.split_whitespace() {
        assert_eq!(outbound(GUARDED).check(&url(&format!("https://{host}/a?b"))), Ok(()), "{host}");
    }
}

#[test]
fn only_https_without_credentials_passes() {
    let guarded = outbound(GUARDED);
    for text in [
        "http://example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "data:,a",
        "ws://example.com",
    ] {
        let reason = guarded.check(&url(text)).expect_err(text);
        assert_eq!(reason.to_string(), "only https addresses are accepted");
    }
    for text in ["https://me@example.com", "https://me:pw@example.com", "https://:pw@example.com"] {
        assert_eq!(guarded.check(&url(text)), Err(Refused::Userinfo), "{text}");
    }
    for text in ["https://.", "https://.../a"] {
        assert_eq!(outbound(LIFTED).check(&url(text)), Err(Refused::Host), "{text}");
    }
    assert!(outbound(LIFTED).check(&url("gopher://example.com")).is_err());
}

#[tokio::test]
async fn a_trusted_host_passes_on_its_own_port_only() {
    let (engine, trap) = (Server::local(OK).await, Server::local(OK).await);
    let lookup = names("engine.example", &["127.0.0.1"]);
    let trusted = [engine.url("engine.example"), engine.url("127.0.0.1")];
    let guarded = Outbound::with_resolver(HTTP, &trusted, lookup).unwrap();
    for host in ["engine.example", "127.0.0.1", "0x7f.1"] {
        assert_eq!(status(&guarded, &engine.url(host)).await, 200, "{host}");
    }
    assert!(is_refused(&failure(&guarded, &trap.url("engine.example")).await));
    assert_eq!(guarded.check(&trap.url("127.0.0.1")), Err(Refused::Address));
    for host in ["localhost", "127.0.0.2", "[::ffff:127.0.0.1]", "me@127.0.0.1"] {
        assert!(guarded.check(&engine.url(host)).is_err(), "{host}");
    }
    let strict = Outbound::new(GUARDED, &trusted).unwrap();
    assert_eq!(strict.check(&engine.url("127.0.0.1")), Ok(()));
    assert_eq!(
        strict.check(&url("http://engine.example/")),
        Err(Refused::Scheme { accepted: "https" })
    );
    assert_eq!((engine.connections(), trap.connections()), (3, 0));
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let trap = Server::local(OK).await;
    let redirect = format!(
        "HTTP/1.1 307 Moved\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        trap.url("127.0.0.1")
    );
    let server = Server::local(redirect.leak()).await;
    let address = server.url("127.0.0.1");
    let trusting = Outbound::new(GUARDED, std::slice::from_ref(&address)).unwrap();
    assert_eq!(status(&trusting, &address).await, 307);
    assert_eq!(status(&outbound(LIFTED), &address).await, 307);
    let configured = trusting.configured().post(address).send().await.unwrap();
    assert_eq!(configured.status().as_u16(), 307);
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn permissions_lift_the_guard_and_one_lookup_serves_one_connection() {
    let server = Server::local(OK).await;
    assert_eq!(status(&outbound(LIFTED), &server.url("127.0.0.1")).await, 200);
    assert_eq!(status(&outbound(LIFTED), &server.url("localhost")).await, 200);
    let lookup = names("internal.example", &["127.0.0.1"]);
    let lifted = Outbound::with_resolver(LIFTED, &[], lookup.clone()).unwrap();
    assert_eq!(status(&lifted, &server.url("internal.example")).await, 200);
    assert_eq!(lookup.questions.load(Ordering::SeqCst), 1);
    let private =
        Outbound::new(Permissions { allow_private: true, allow_http: false }, &[]).unwrap();
    assert_eq!(private.check(&url("https://10.0.0.5/")), Ok(()));
    assert_eq!(private.check(&url("https://localhost/")), Ok(()));
    assert!(private.check(&url("http://10.0.0.5/")).is_err());
}

#[test]
fn plain_http_works_without_certificates_and_past_proxies() {
    let nowhere = "http://127.0.0.1:1";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .args(["--exact", "child_without_certificates", "--ignored"])
        .envs([("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")])
        .envs(
            ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"]
                .map(|name| (name, nowhere)),
        )
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[tokio::test]
#[ignore = "run by the test above, in a process whose environment has no certificates"]
async fn child_without_certificates() {
    let server = Server::local(OK).await;
    let bare = outbound(LIFTED);
    assert!(!bare.has_certificates());
    assert_eq!(status(&bare, &server.url("127.0.0.1")).await, 200);
    let tls = url(&format!("https://127.0.0.1:{}/", server.port));
    assert_eq!(describe(&failure(&bare, &tls).await), "not reachable");
}
