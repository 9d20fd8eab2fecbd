//! The inspector behind a path that a real nginx puts in front of it.

use serde_json::json;

use crate::{browser::Browser, support::*};

const KEY: &str = "key-of-a-prefix-reader-0123";

#[tokio::test]
async fn behind_a_path_a_job_is_submitted_and_followed_to_its_end() {
    let Some(browser) = Browser::open().await else { return };
    let setup = Setup::new().key(KEY).set("API__KEYS", json!([{ "name": "support", "key": KEY }]));
    let service = setup.set("API__PUBLIC_URL", "http://127.0.0.1/finishline").start().await;
    let api = &service.api;
    let site = format!(
        "server {{
            listen 127.0.0.1:{{port}};
            location /finishline/ {{ proxy_pass {api}/; proxy_set_header Host $http_host; }}
        }}"
    );
    let Some(nginx) = Nginx::start(&site).await else { return };
    browser.visit(&format!("{}/finishline/submit", nginx.origin())).await;
    browser.type_into("#key", KEY).await;
    browser.click(".sign-in button").await;
    browser.wait_until("location.pathname === '/finishline/submit'").await;
    browser.settle().await;
    browser.click(".scan:has([data-scan=cbct]) summary").await;
    browser.type_into("[name='url.cbct']", "https://store.example/scan.dcm").await;
    browser.type_into("[name=reference]", "case-42").await;
    browser.click("#submit .edit button[type=submit]").await;
    browser.wait_until("location.pathname.startsWith('/finishline/jobs/')").await;
    browser.settle().await;
    // The page learns of the end by its event stream, through the proxy.
    let job = service.jobs().await.remove(0);
    service.finish(&job).await;
    browser.wait_until("document.querySelector('main').innerText.includes('succeeded')").await;

    browser.visit(&format!("{}/finishline/docs", nginx.origin())).await;
    browser.wait_until("document.body.innerText.includes('/v1/jobs')").await;
    assert_eq!(browser.address().await, format!("{}/finishline/docs/", nginx.origin()));
    assert_eq!(browser.complaints().await, [""; 0]);
}
