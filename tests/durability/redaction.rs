//! Headers that hold what would let somebody in: kept without it, in the database and the spool.

use reqwest::Method;

use crate::{
    evidence::*,
    failing_store::{FailingStore, Failure, Plan},
    support::*,
};

const SECRET: &str = "a-long-inbox-secret-0123456789";

fn percent(text: &str) -> String {
    text.bytes().map(|one| format!("%{one:02X}")).collect()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test]
async fn no_header_keeps_a_callback_signature_or_the_inbox_secret_in_any_spelling() {
    let (setup, store) =
        FailingStore::in_setup(Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET));
    let service = setup.start().await;
    let store = store();
    let (id, url) = running_job(&service).await;
    let (_, foreign) = running_job(&service).await;
    let inbox = format!("{}/inbox/{SECRET}", service.callbacks);
    let signature = url.rsplit('/').next().expect("a signature").to_owned();
    let foreign_signature = foreign.rsplit('/').next().expect("a signature").to_owned();
    let names = ["x-original-url", "referer", "x-forwarded-uri", "forwarded", "via", "x-anything"];
    let spellings = |address: &str| {
        vec![
            address.to_owned(),
            format!("for=1.2.3.4;path=\"{address}?a=b\""),
            format!("/next?to={}", percent(address)),
            percent(&percent(address)),
            base64(address),
            format!("u={}", base64(&format!("GET {address} HTTP/1.1"))),
        ]
    };
    let send = async |to: &str, body: String, address: &str| {
        let mut request = service.request_to(Method::POST, to).body(body);
        for name in names {
            for value in spellings(address) {
                request = request.header(name, value);
            }
        }
        outcome(&Answer::of(request.header("x-kept", "as it came")).await)
    };
    let addresses = [&url, &foreign, &inbox];
    for (number, address) in addresses.iter().enumerate() {
        assert_eq!(send(&url, format!("[{number}]"), address).await, "unrecognised");
        let body = format!(r#"{{"jobId":"{number}"}}"#);
        assert_eq!(send(&inbox, body, address).await, "unrecognised");
    }
    store.fail(Plan::always(Failure::Unavailable));
    for (number, address) in addresses.iter().enumerate() {
        assert_eq!(send(&url, format!("{{\"n\":{number}}}"), address).await, "spooled");
    }
    let on_disk = || {
        let files = std::fs::read_dir(service.folder()).expect("a folder");
        files
            .flat_map(|file| std::fs::read(file.expect("a file").path()).expect("readable"))
            .collect::<Vec<u8>>()
    };
    let holds =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|one| one == text.as_bytes());
    let bytes = on_disk();
    assert!(holds(&bytes, "as it came"), "headers are kept");
    for secret in [&signature, &foreign_signature, &SECRET.to_owned()] {
        for spelling in [secret.clone(), percent(secret), percent(&percent(secret))] {
            assert!(!holds(&bytes, &spelling), "{spelling} is on disk");
        }
    }
    // Base64 of an address: its letters depend on where they begin, so the values are looked at.
    store.heal();
    let deliveries = wait_for("the spool to be taken in", async || {
        Some(service.deliveries(&id).await).filter(|found| found.len() == 6)
    })
    .await;
    for delivery in &deliveries {
        let headers = delivery["headers"].to_string();
        for address in addresses {
            assert!(!headers.contains(&base64(address)[..40]), "{headers}");
        }
        assert!(headers.contains("[redacted]") && headers.contains(r#"["x-kept","as it came"]"#));
    }
}
