//! Chromium, driven over the WebDriver protocol: the few commands the tests need.
//!
//! The protocol is JSON over plain HTTP, so the client that the tests have already speaks it. The
//! invariants: every browser has a new, empty profile, and whatever the pages complain of on the
//! console is kept until a test asks for it.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{chromedriver::Chromedriver, support::*};

/// Browsers at a time: each is a handful of processes.
static ROOM: Semaphore = Semaphore::const_new(2);

/// What a page may take to load; a page that takes longer is a failure.
const PAGE_LOAD: Duration = Duration::from_secs(30);

/// Longer than any command takes on a slow machine.
const COMMAND: Duration = Duration::from_secs(90);

/// The protocol's name for a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Quiet, without a sandbox (which a container lacks), and without anything that calls home.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en-US",
    "--window-size=1280,800",
];

/// The reader's choice of colours.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    pub const BOTH: [Self; 2] = [Self::Light, Self::Dark];

    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A browser with one window.
pub struct Browser {
    http: reqwest::Client,
    /// Address of the session's commands.
    session: String,
    // In this order: the browser ends before its profile is removed and its place given on.
    _driver: Chromedriver,
    _profile: TempDir,
    _place: SemaphorePermit<'static>,
}

impl Browser {
    /// Opens one; `None` where this machine has none.
    pub async fn open() -> Option<Self> {
        Self::open_with(&[]).await
    }

    /// One whose reader has turned scripts off.
    pub async fn open_without_scripts() -> Option<Self> {
        Self::open_with(&["--blink-settings=scriptEnabled=false"]).await
    }

    async fn open_with(more: &[&str]) -> Option<Self> {
        let place = ROOM.acquire().await.expect("it is never closed");
        let mut driver = Chromedriver::start()?;
        let profile = tempfile::tempdir().expect("a temporary folder");
        let folder = format!("--user-data-dir={}", profile.path().display());
        let flags: Vec<&str> = [FLAGS, more, &[&folder]].concat();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // A dialog is never answered for the page: the next command fails and tells of it.
            "unhandledPromptBehavior": "ignore",
            "timeouts": {"pageLoad": PAGE_LOAD.as_millis() as u64},
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(COMMAND);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = http.build().expect("a client");
        let sessions = format!("{}/session", driver.origin());
        let opened = command(&http, Method::POST, &sessions, Some(wanted)).await;
        let id = text(&opened.expect("the browser opens")["sessionId"]).to_owned();
        let session = format!("{sessions}/{id}");
        driver.session = Some(id);
        Some(Self { http, session, _driver: driver, _profile: profile, _place: place })
    }

    async fn get(&self, path: &str) -> Value {
        let address = format!("{}{path}", self.session);
        let answer = command(&self.http, Method::GET, &address, None).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn try_post(&self, path: &str, body: Value) -> Result<Value, String> {
        command(&self.http, Method::POST, &format!("{}{path}", self.session), Some(body)).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Goes to an address and waits until the page is loaded.
    pub async fn visit(&self, address: &str) {
        self.post("/url", json!({ "url": address })).await;
    }

    pub async fn reload(&self) {
        self.post("/refresh", json!({})).await;
    }

    /// What stands in the address bar.
    pub async fn address(&self) -> String {
        text(&self.get("/url").await).to_owned()
    }

    /// The page as markup.
    pub async fn source(&self) -> String {
        text(&self.get("/source").await).to_owned()
    }

    /// Runs a script as the body of a function beside the page's own; a promise is awaited. The
    /// page's content policy neither hinders it nor is weakened by it.
    pub async fn run(&self, script: &str) -> Value {
        self.run_with(script, json!([])).await
    }

    /// The same with values for `arguments`.
    pub async fn run_with(&self, script: &str, values: Value) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": values})).await
    }

    /// Waits until an expression is true.
    pub async fn wait_until(&self, expression: &str) {
        let script = format!("return !!({expression})");
        wait_for(expression, async || {
            let body = json!({"script": script, "args": []});
            // Between two pages there is nothing to ask.
            let is_so = self.try_post("/execute/sync", body).await.ok()?;
            (is_so == true).then_some(())
        })
        .await;
    }

    /// Waits until a page that keeps itself fresh has done so for the first time; from then on it
    /// stands still as long as nothing happens.
    pub async fn settle(&self) {
        let fresh = "(document.readyState === 'complete' && (!document.body.dataset.events ||
            [...document.querySelectorAll('[data-live]')].every((part) => part.dataset.last)))";
        self.wait_until(fresh).await;
    }

    async fn try_find(&self, selector: &str) -> Result<String, String> {
        let query = json!({"using": "css selector", "value": selector});
        let found = self.try_post("/element", query).await?;
        Ok(text(&found[ELEMENT]).to_owned())
    }

    async fn try_on(&self, selector: &str, action: &str, body: &Value) -> Result<Value, String> {
        let element = self.try_find(selector).await?;
        self.try_post(&format!("/element/{element}/{action}"), body.clone()).await
    }

    /// Acts on the first element of a selector, once it is there: pages replace their parts.
    async fn on(&self, selector: &str, action: &str, body: Value) {
        let begun = Instant::now();
        loop {
            match self.try_on(selector, action, &body).await {
                Ok(_) => return,
                Err(error) => {
                    let is_final = error.starts_with("unexpected alert");
                    let is_late = begun.elapsed() > DEADLINE;
                    assert!(!is_final && !is_late, "{action} on {selector}: {error}");
                }
            }
        }
    }

    /// Clicks as a reader would: the element has to be visible and not covered.
    pub async fn click(&self, selector: &str) {
        self.on(selector, "click", json!({})).await;
    }

    pub async fn type_into(&self, selector: &str, words: &str) {
        self.on(selector, "value", json!({ "text": words })).await;
    }

    /// Presses and lets go of a key; of those without a character, by the protocol's code.
    pub async fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!([{"type": "key", "id": "keyboard", "actions": keys}]);
        self.post("/actions", json!({ "actions": actions })).await;
    }

    /// Draws with the pressed mouse from the middle of an element, as far as told.
    pub async fn drag(&self, selector: &str, by: (i32, i32)) {
        let element = self.try_find(selector).await.expect("it is there");
        let origin = json!({ ELEMENT: element });
        let steps = json!([
            {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 100, "origin": origin, "x": by.0, "y": by.1},
            {"type": "pointerUp", "button": 0},
        ]);
        let mouse = json!({"type": "pointer", "id": "mouse", "actions": steps});
        self.post("/actions", json!({ "actions": [mouse] })).await;
    }

    /// The text of an element as it is shown, once it is there.
    pub async fn text_of(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText";
        let found = wait_for(selector, async || {
            let answer = self.run_with(script, json!([selector])).await;
            answer.as_str().map(str::to_owned)
        });
        found.await
    }

    /// The text of the whole page as it is shown.
    pub async fn words(&self) -> String {
        text(&self.run("return document.body.innerText").await).to_owned()
    }

    /// The window as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let encoded = self.get("/screenshot").await;
        BASE64_STANDARD.decode(text(&encoded)).expect("a picture in base64")
    }

    /// An element as PNG.
    pub async fn picture_of(&self, selector: &str) -> Vec<u8> {
        let element = self.try_find(selector).await.expect("it is there");
        let encoded = self.get(&format!("/element/{element}/screenshot")).await;
        BASE64_STANDARD.decode(text(&encoded)).expect("a picture in base64")
    }

    /// What the pages complained of since the last question: errors, warnings, breaches of the
    /// content policy.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().expect("a list").clone();
        // The graphics driver remarks that taking pictures is slow.
        let loud = |entry: &&Value| {
            matches!(text(&entry["level"]), "SEVERE" | "WARNING") && entry["source"] != "rendering"
        };
        entries.iter().filter(loud).map(|entry| entry.to_string()).collect()
    }

    /// Whether a dialog is open, which only a script can do.
    pub async fn has_dialog(&self) -> bool {
        let path = format!("{}/alert/text", self.session);
        command(&self.http, Method::GET, &path, None).await.is_ok()
    }

    /// The size of the window's content and the reader's choice of colours.
    pub async fn look_at(&self, size: (u32, u32), scheme: Scheme) {
        let (width, height) = size;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.develop("Emulation.setDeviceMetricsOverride", size).await;
        let feature = json!({"name": "prefers-color-scheme", "value": scheme.name()});
        // Without motion a page looks the same at any moment.
        let still = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        self.develop("Emulation.setEmulatedMedia", json!({"features": [feature, still]})).await;
    }

    /// A command of Chromium's own protocol.
    async fn develop(&self, name: &str, parameters: Value) {
        self.post("/goog/cdp/execute", json!({"cmd": name, "params": parameters})).await;
    }
}

/// Sends a command; answers its value, or what the driver says is wrong.
async fn command(
    http: &reqwest::Client,
    method: Method,
    address: &str,
    body: Option<Value>,
) -> Result<Value, String> {
    let mut request = http.request(method, address);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("chromedriver answers");
    let is_done = answer.status().is_success();
    let mut answer: Value = answer.json().await.expect("chromedriver answers JSON");
    let value = answer["value"].take();
    match is_done {
        true => Ok(value),
        false => {
            let message = value["message"].as_str().unwrap_or_default();
            let message = message.lines().next().unwrap_or_default();
            Err(format!("{}: {message}", value["error"].as_str().unwrap_or_default()))
        }
    }
}
