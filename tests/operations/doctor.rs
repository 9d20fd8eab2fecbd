//! What the doctor finds at the public URL, each from a real fault.

use std::{
    io::Write as _,
    net::TcpListener as StdListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::Redirect,
    routing::{any, post},
};
use finishline::{
    clock::Clock,
    config::PublicUrlSetting,
    doctor::{Doctor, Fault, Prober, Trouble},
    domain::signature,
    outbound::{Outbound, Permissions},
    public_url::PublicUrl,
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::support::{Service, client, free_address, serve, settings};

const KEY: [u8; 32] = [7; 32];
const MIB: usize = 1024 * 1024;

/// What the doctor of an instance with this key finds at `public_url`.
async fn examine(public_url: &str, signing_key: [u8; 32]) -> Option<Fault> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(folder.path()).callbacks;
    config.public_url = PublicUrlSetting::Fixed(public_url.parse().unwrap());
    let outbound = Outbound::new(Permissions::default(), &[]).unwrap();
    let public_url = PublicUrl::new(&config, 8085, outbound.clone());
    let prober = Prober { outbound, signing_key, max_body: config.max_body };
    let fault = Doctor::new(prober, public_url, Clock::system()).examine().await.fault;
    if let Some(fault) = &fault {
        let sentence = fault.to_string();
        let signature = signature::sign(&signing_key, signature::PROBE_ID);
        assert!(!sentence.contains(&signature), "{sentence}");
        assert!(!sentence.contains('\n') && sentence.contains(": "), "{sentence}");
    }
    fault
}

/// A proxy's answer that has nothing of ours.
async fn examine_answer(status: u16, kind: &'static str, text: &'static str) -> Option<Fault> {
    let answer = move || async move {
        (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, kind)], text)
    };
    examine(&serve(Router::new().fallback(any(answer))).await, KEY).await
}

#[tokio::test]
async fn a_public_url_that_leads_here_is_fine() {
    let service = Service::start().await;
    let url = format!("http://{}", service.callbacks);
    assert_eq!(examine(&url, service.signing_key).await, None);
    service.stop().await;
}

#[tokio::test]
async fn a_probe_is_proven_and_leaves_no_trace() {
    let service = Service::start().await;
    let url = service.callback_url(signature::PROBE_ID);
    let answer = client().post(&url).body("nonce").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["outcome"], "probe");
    let proof = answer["proof"].as_str().unwrap();
    assert!(signature::is_proof(&service.signing_key, b"nonce", proof));

    let forged = format!("{}{}", &url[..url.len() - 43], "A".repeat(43));
    assert_eq!(client().post(forged).body("nonce").send().await.unwrap().status(), 404);
    let too_large = vec![b' '; 16 * 1024 * 1024 + 1];
    assert_eq!(client().post(&url).body(too_large).send().await.unwrap().status(), 413);

    let jobs = client().get(format!("http://{}/v1/jobs", service.api)).send().await.unwrap();
    let jobs: Value = serde_json::from_slice(&jobs.bytes().await.unwrap()).unwrap();
    assert_eq!(jobs["jobs"], json!([]));
    let nil = signature::PROBE_ID;
    let events = client().get(format!("http://{}/v1/jobs/{nil}/events", service.api));
    assert_eq!(events.send().await.unwrap().status(), 404);
    service.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_named() {
    let found = examine("http://hooks.finishline.invalid", KEY).await;
    assert!(matches!(found, Some(Fault::NoAnswer { trouble: Trouble::Name, .. })), "{found:?}");
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_named() {
    let found = examine(&format!("http://{}", free_address().await), KEY).await;
    assert!(
        matches!(found, Some(Fault::NoAnswer { trouble: Trouble::Unreachable, .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_redirect_is_named_with_its_target_and_not_followed() {
    let to_https = || async { Redirect::permanent("https://hooks.example.com/callbacks/x") };
    let url = serve(Router::new().fallback(any(to_https))).await;
    let to = Some("https://hooks.example.com".to_owned());
    assert_eq!(examine(&url, KEY).await, Some(Fault::Redirect { status: 308, to }));
}

#[tokio::test]
async fn the_warning_page_of_ngrok_is_recognised_by_its_header_or_its_words() {
    let page = "<!DOCTYPE html><html><title>ngrok</title>You are about to visit: x</html>";
    assert_eq!(examine_answer(200, "text/html", page).await, Some(Fault::NgrokWarning));
    let coded = || async { ([("ngrok-error-code", "ERR_NGROK_6024")], "<html></html>") };
    let url = serve(Router::new().fallback(any(coded))).await;
    assert_eq!(examine(&url, KEY).await, Some(Fault::NgrokWarning));
}

#[tokio::test]
async fn an_error_of_ngrok_itself_is_named_by_its_code() {
    let offline = || async {
        (StatusCode::NOT_FOUND, [("ngrok-error-code", "ERR_NGROK_3200")], "<html></html>")
    };
    let url = serve(Router::new().fallback(any(offline))).await;
    let code = "ERR_NGROK_3200".to_owned();
    assert_eq!(examine(&url, KEY).await, Some(Fault::Ngrok { code }));
}

#[tokio::test]
async fn pages_logins_and_gateways_in_front_are_told_apart() {
    let page = "<html>Welcome to nginx!</html>";
    assert_eq!(examine_answer(200, "text/html", page).await, Some(Fault::Page { status: 200 }));
    let hidden = examine_answer(404, "text/plain", page).await;
    assert_eq!(hidden, Some(Fault::Page { status: 404 }));
    let login = examine_answer(401, "text/html", page).await;
    assert_eq!(login, Some(Fault::Login { status: 401 }));
    let gateway = examine_answer(502, "text/html", page).await;
    assert_eq!(gateway, Some(Fault::Gateway { status: 502 }));
    let json = examine_answer(200, "application/json", r#"{"ok":true}"#).await;
    assert_eq!(json, Some(Fault::Unexpected { status: 200 }));
}

#[tokio::test]
async fn another_instance_is_not_taken_for_this_one() {
    let other = Service::start().await;
    let url = format!("http://{}", other.callbacks);
    assert_eq!(examine(&url, KEY).await, Some(Fault::OtherInstance));
    // Whoever answers with a proof of an older probe, or with any text, is no better.
    let replayed = signature::prove(&KEY, b"another body");
    let answer = json!({ "outcome": "probe", "proof": replayed }).to_string();
    let url = serve(Router::new().fallback(any(move || async move { answer }))).await;
    assert_eq!(examine(&url, KEY).await, Some(Fault::OtherInstance));
    other.stop().await;
}

#[tokio::test]
async fn a_door_of_the_api_is_not_taken_for_the_callbacks() {
    let service = Service::start().await;
    let url = format!("http://{}", service.api);
    assert_eq!(examine(&url, service.signing_key).await, Some(Fault::OtherInstance));
    service.stop().await;
}

#[tokio::test]
async fn a_proxy_that_refuses_what_is_larger_than_1_mib_is_found_though_small_ones_pass() {
    // As nginx does by itself: a body of 1 MiB passes.
    let proxy = Proxy::start(MIB).await;
    proxy.pass_on_to(KEY);
    let fault = examine(&proxy.url, KEY).await;
    assert!(matches!(fault, Some(Fault::TooLarge { bytes }) if bytes > MIB), "{fault:?}");
}

/// What stands in front of a service: bodies above its limit are refused, as nginx does, and others
/// are answered as the instance with the key would.
#[derive(Clone)]
struct Proxy {
    url: String,
    limit: Arc<AtomicUsize>,
    key: Arc<Mutex<Option<[u8; 32]>>>,
    /// Lengths of the bodies that came.
    came: Arc<Mutex<Vec<usize>>>,
}

impl Proxy {
    async fn start(limit: usize) -> Self {
        let limit = Arc::new(AtomicUsize::new(limit));
        let proxy = Self { url: String::new(), limit, key: Arc::default(), came: Arc::default() };
        let answering = proxy.clone();
        let answer = move |body: axum::body::Bytes| {
            answering.came.lock().unwrap().push(body.len());
            let is_over = body.len() > answering.limit.load(Ordering::SeqCst);
            let key = *answering.key.lock().unwrap();
            async move {
                match key {
                    _ if is_over => Err(StatusCode::PAYLOAD_TOO_LARGE),
                    None => Err(StatusCode::BAD_GATEWAY),
                    Some(key) => {
                        let proof = signature::prove(&key, &body);
                        Ok(json!({ "outcome": "probe", "proof": proof }).to_string())
                    }
                }
            }
        };
        let route = post(answer).layer(axum::extract::DefaultBodyLimit::disable());
        Self { url: serve(Router::new().fallback_service(route)).await, ..proxy }
    }

    fn pass_on_to(&self, key: [u8; 32]) {
        *self.key.lock().unwrap() = Some(key);
    }

    fn of_largest_size(&self) -> usize {
        self.came.lock().unwrap().iter().filter(|length| **length == 16 * MIB).count()
    }
}

#[tokio::test]
async fn a_running_service_probes_with_the_largest_body_soon_and_then_once_a_day() {
    let proxy = Proxy::start(10 * MIB).await;
    let clock = Clock::manual("2026-11-23T20:15:00Z".parse().unwrap());
    let service = Service::start_by(clock.clone(), |config, _| {
        config.callbacks.public_url = PublicUrlSetting::Fixed(proxy.url.parse().unwrap());
    })
    .await;
    proxy.pass_on_to(service.signing_key);
    let turn = async |pause: u64, at: &str, shows: &dyn Fn(&Value) -> bool| {
        clock.advance(Duration::from_secs(pause));
        let at = json!(at);
        let shown = |_: u16, body: &Value| body["checks"]["publicUrl"]["checkedAt"] == at;
        let body = service.wait_until_ready_shows(shown).await;
        assert!(shows(&body["checks"]["publicUrl"]), "{body}");
    };
    let passes_usual = |url: &Value| {
        url["ok"] == true && url["bodiesUpTo"].as_u64().is_some_and(|bytes| bytes > MIB as u64)
    };
    let loses_largest = |url: &Value| {
        url["ok"] == false && url["detail"].as_str().is_some_and(|text| text.contains("16777216"))
    };
    let passes_largest = |url: &Value| url["ok"] == true && url["bodiesUpTo"] == 16 * MIB;
    // Its key is known by now; the first examination may have come before.
    service
        .wait_until_ready_shows(|_, body| body["checks"]["publicUrl"]["checkedAt"].is_string())
        .await;
    let mut turns = 0;
    while proxy.of_largest_size() == 0 {
        turns += 1;
        assert!(turns <= 3, "at once, mended, and then with the largest body");
        let next = clock.now().as_second() + 60;
        let next = jiff::Timestamp::from_second(next).unwrap();
        turn(60, &format!("{next:.3}"), &|url| passes_usual(url) || loses_largest(url)).await;
    }
    let refused = service.wait_until_ready_shows(|status, _| status == 503).await;
    assert!(loses_largest(&refused["checks"]["publicUrl"]), "{refused}");
    proxy.limit.store(20 * MIB, Ordering::SeqCst);
    // Smaller ones say nothing of it: it counts until one of its size arrives.
    let now = clock.now().as_second();
    let rest = jiff::Timestamp::from_second(now + 20).unwrap();
    turn(20, &format!("{rest:.3}"), &loses_largest).await;
    let rest = jiff::Timestamp::from_second(now + 20 + 600).unwrap();
    turn(600, &format!("{rest:.3}"), &passes_largest).await;
    assert_eq!(proxy.of_largest_size(), 2);
    let rest = jiff::Timestamp::from_second(now + 620 + 3_600).unwrap();
    turn(3_600, &format!("{rest:.3}"), &passes_largest).await;
    assert_eq!(proxy.of_largest_size(), 2, "not again within the day");
    let rest = jiff::Timestamp::from_second(now + 620 + 86_400).unwrap();
    turn(86_400 - 3_600, &format!("{rest:.3}"), &passes_largest).await;
    assert_eq!(proxy.of_largest_size(), 3);
    service.stop().await;
}

#[tokio::test]
async fn a_public_url_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(stream);
        }
    });
    let found = examine(&url, KEY).await;
    assert!(matches!(found, Some(Fault::NoAnswer { trouble: Trouble::Slow(_), .. })), "{found:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let found = examine(&url, KEY).await;
    assert!(matches!(found, Some(Fault::NoAnswer { trouble: Trouble::Lost, .. })), "{found:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_named() {
    client();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let certificate = include_bytes!("self_signed.der").to_vec().into();
    let key =
        rustls::pki_types::PrivatePkcs8KeyDer::from(&include_bytes!("self_signed_key.der")[..]);
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = tls.complete_io(&mut stream);
        }
    });
    let found = examine(&format!("https://localhost:{port}"), KEY).await;
    let Some(Fault::NoAnswer { trouble: Trouble::Tls(reason), .. }) = found else {
        panic!("{found:?}");
    };
    assert!(reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn plain_http_where_https_is_expected_is_named() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    let found = examine(&url, KEY).await;
    assert!(matches!(found, Some(Fault::NoAnswer { trouble: Trouble::Tls(_), .. })), "{found:?}");
}

#[tokio::test]
async fn readiness_follows_what_the_doctor_finds() {
    let service = Service::start().await;
    let url = format!("http://{}", service.callbacks);
    let examined = |_: u16, body: &Value| body["checks"]["publicUrl"]["checkedAt"].is_string();
    let body = service.wait_until_ready_shows(examined).await;
    assert_eq!(body["status"], "ready");
    assert_eq!(body["checks"]["publicUrl"]["ok"], true);
    assert_eq!(body["checks"]["publicUrl"]["url"], url);
    assert_eq!(body["checks"]["publicUrl"]["detail"], Value::Null);
    service.stop().await;
}

#[tokio::test]
async fn a_service_whose_public_url_leads_elsewhere_is_not_ready_and_says_why() {
    let nowhere = free_address().await;
    let service = Service::start_with(|config, _| {
        let url = format!("http://{nowhere}").parse().unwrap();
        config.callbacks.public_url = PublicUrlSetting::Fixed(url);
    })
    .await;
    let body = service.wait_until_ready_shows(|status, _| status == 503).await;
    let check = &body["checks"]["publicUrl"];
    assert_eq!(check["ok"], false);
    assert_eq!(check["url"], format!("http://{nowhere}"));
    assert!(check["detail"].as_str().unwrap().contains("nothing answers there"), "{check}");
    assert_eq!(body["checks"]["database"]["ok"], true);
    service.stop().await;
}

#[tokio::test]
async fn a_new_public_url_counts_once_it_is_proved_and_is_examined_at_once() {
    // What the ngrok agent says: its tunnel's public URL, and the port it leads to.
    let tunnel = Arc::new(Mutex::new((format!("http://{}", free_address().await), 0)));
    let named = Arc::clone(&tunnel);
    let answer = move || {
        let (url, port) = named.lock().unwrap().clone();
        let addr = format!("http://localhost:{port}");
        let tunnel = json!({ "public_url": url, "config": { "addr": addr } });
        async move { json!({ "tunnels": [tunnel] }).to_string() }
    };
    let agent = serve(Router::new().route("/api/tunnels", any(answer))).await;
    let clock = Clock::manual("2026-11-23T20:15:00Z".parse().unwrap());
    let service = Service::start_by(clock.clone(), |config, callbacks| {
        config.callbacks.public_url = PublicUrlSetting::Ngrok;
        config.callbacks.ngrok_api = agent.parse().unwrap();
        tunnel.lock().unwrap().1 = callbacks.port();
    })
    .await;
    service.wait_until_ready_shows(|status, _| status == 503).await;
    // One that keeps silent: for as long as it is examined, it is not ready.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let renamed = format!("http://{}", silent.local_addr().unwrap());
    tunnel.lock().unwrap().0.clone_from(&renamed);
    let shown = |_: u16, body: &Value| body["checks"]["publicUrl"]["url"] == renamed;
    let body = service.wait_until_ready_shows(shown).await;
    assert_eq!(body["status"], "not ready");
    assert_eq!(body["checks"]["publicUrl"]["ok"], false);
    assert_eq!(body["checks"]["publicUrl"]["checkedAt"], Value::Null);
    // One that leads here: it is examined although the pause is not over.
    let renamed = format!("http://{}", service.callbacks);
    tunnel.lock().unwrap().0.clone_from(&renamed);
    drop(silent);
    let body = service.wait_until_ready_shows(|status, _| status == 200).await;
    assert_eq!(body["checks"]["publicUrl"]["url"], renamed);
    assert_eq!(body["checks"]["publicUrl"]["checkedAt"], "2026-11-23T20:15:00.000Z");
    clock.advance(Duration::from_secs(60));
    let checked_again = |status, body: &Value| {
        status == 200 && body["checks"]["publicUrl"]["checkedAt"] == "2026-11-23T20:16:00.000Z"
    };
    service.wait_until_ready_shows(checked_again).await;
    service.stop().await;
}
