//! Links that leave as a redirect. The invariant: what our own requests may not reach is given to
//! nobody to follow.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use finishline::outbound::{Outbound, Refused};

use crate::hosts::{FORBIDDEN_ADDRESSES, FORBIDDEN_SPELLINGS, PUBLIC};
use crate::support::{GUARDED, HTTP, LIFTED, Names, names, outbound, url};

#[tokio::test]
async fn no_link_to_a_forbidden_host_leaves() {
    let guarded = outbound(HTTP);
    let hosts =
        FORBIDDEN_ADDRESSES.split_whitespace().chain(FORBIDDEN_SPELLINGS.split_whitespace());
    for host in hosts {
        for link in [format!("http://{host}/a?b"), format!("https://{host}:8443/a")] {
            let reason = guarded.may_leave(&link).await.expect_err(&link);
            assert!(matches!(reason, Refused::Address | Refused::LocalName), "{link}: {reason:?}");
        }
    }
}

#[tokio::test]
async fn no_name_of_a_forbidden_address_leaves() {
    let lookup = Arc::new(Names::default());
    let guarded = Outbound::with_resolver(GUARDED, &[], lookup.clone()).unwrap();
    for host in FORBIDDEN_ADDRESSES.split_whitespace() {
        let address = host.trim_matches(['[', ']']);
        for found in [&[address][..], &["8.8.8.8", address]] {
            lookup.set("metadata.example", found);
            let left = guarded.may_leave("https://metadata.example/latest").await;
            assert_eq!(left, Err(Refused::Resolved), "{found:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_plain_link_does_not_leave() {
    let guarded = outbound(GUARDED);
    for (link, reason) in [
        ("", Refused::Unreadable),
        ("mesh.stl", Refused::Unreadable),
        ("/jobs", Refused::Unreadable),
        ("//store.example/a", Refused::Unreadable),
        ("https://", Refused::Unreadable),
        ("https://[fe80::1%25eth0]/a", Refused::Unreadable),
        ("https://[fe80::1%eth0]/a", Refused::Unreadable),
        ("https://a b/", Refused::Unreadable),
        ("https://store.example:99999/", Refused::Unreadable),
        ("https://./a", Refused::Host),
        ("javascript:alert(1)", Refused::Scheme { accepted: "https" }),
        ("java\tscr\nipt:alert(1)", Refused::Scheme { accepted: "https" }),
        (" \u{1}JavaScript:alert(1)", Refused::Scheme { accepted: "https" }),
        ("data:text/html,<script>", Refused::Scheme { accepted: "https" }),
        ("file:///etc/passwd", Refused::Scheme { accepted: "https" }),
        ("blob:https://store.example/1", Refused::Scheme { accepted: "https" }),
        ("ftp://store.example/a", Refused::Scheme { accepted: "https" }),
        ("http://store.example/a", Refused::Scheme { accepted: "https" }),
        ("https://me@store.example/a", Refused::Userinfo),
        ("https://me:word@store.example/a", Refused::Userinfo),
        ("https://store.example:443@evil.example/", Refused::Userinfo),
        ("https:\\\\169.254.169.254\\latest", Refused::Address),
        ("https:169.254.169.254/latest", Refused::Address),
        ("\thttps://169.254.169.254/", Refused::Address),
    ] {
        assert_eq!(guarded.may_leave(link).await, Err(reason), "{link:?}");
    }
}

#[tokio::test]
async fn a_link_leaves_in_the_spelling_that_was_judged() {
    let lookup = Arc::new(Names::default());
    let guarded = Outbound::with_resolver(GUARDED, &[], lookup.clone()).unwrap();
    for host in PUBLIC.split_whitespace() {
        let link = format!("https://{host}/a?b");
        assert_eq!(guarded.may_leave(&link).await, Ok(url(&link)), "names that nobody knows too");
    }
    for (link, spelled) in [
        ("https:\\\\store.example\\a", "https://store.example/a"),
        ("https://STORE.example/a\r\nset-cookie:x=1", "https://store.example/aset-cookie:x=1"),
        (
            "https://store.example/\u{202e}\u{9b}?\u{7f}",
            "https://store.example/%E2%80%AE%C2%9B?%7F",
        ),
    ] {
        assert_eq!(guarded.may_leave(link).await.map(String::from), Ok(spelled.to_owned()));
    }
}

#[tokio::test]
async fn what_is_trusted_or_lifted_leaves_without_a_question() {
    let lookup = names("engine.example", &["127.0.0.1"]);
    let trusted = [url("http://engine.example:8090/24.06")];
    let guarded = Outbound::with_resolver(GUARDED, &trusted, lookup.clone()).unwrap();
    let link = "http://engine.example:8090/file?signature=1";
    assert_eq!(guarded.may_leave(link).await, Ok(url(link)));
    let lifted = Outbound::with_resolver(LIFTED, &[], lookup.clone()).unwrap();
    assert_eq!(lifted.may_leave(link).await, Ok(url(link)));
    assert_eq!(lookup.questions.load(Ordering::SeqCst), 0);
    let elsewhere = "https://engine.example/file";
    assert_eq!(guarded.may_leave(elsewhere).await, Err(Refused::Resolved));
}
