//! What the tests of this crate look at beside the API: the database file itself, callback
//! addresses made with its key, and connections byte by byte.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use finishline::domain::{digest::hex, ids::JobId, signature};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{failing_store::FailingStore, support::*};

/// Lower-case hexadecimal, as the API shows it.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A connection of our own to a database, which the service does not know of.
pub async fn connect(database: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database);
    let options = options.busy_timeout(Duration::from_secs(10));
    options.connect().await.expect("the database opens")
}

pub async fn signing_key(database: &Path) -> [u8; 32] {
    let query = sqlx::query_scalar::<_, Vec<u8>>("select signing_key from instance");
    let key = query.fetch_one(&mut connect(database).await).await.expect("the key");
    key.try_into().expect("32 bytes")
}

/// A number that the database answers.
pub async fn count(connection: &mut SqliteConnection, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(connection).await.expect("a number")
}

/// Changes whenever anyone else has committed anything.
pub async fn data_version(connection: &mut SqliteConnection) -> i64 {
    count(connection, "pragma data_version").await
}

/// The id of a job that is on record nowhere.
pub fn unknown_job() -> JobId {
    JobId::new(Timestamp::now())
}

/// The path that proves itself for a job.
pub fn callback_path(key: &[u8; 32], id: JobId) -> String {
    format!("/callbacks/{id}/{}", signature::sign(key, id))
}

/// A job that runs at the Engine: its id and its callback address.
pub async fn running_job(service: &Service) -> (String, String) {
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]).to_owned();
    let url = service.callback_url(&id);
    (id, url)
}

/// A result for [`ready_job`], as the Engine would word it.
pub fn result(status: &str, link: &str) -> String {
    json!({"success": true, "outputFiles": {"meshes": [
        {"extension": ".stl", "structures": ["mandible"], "status": status, "url": link},
    ]}})
    .to_string()
}

impl FailingStore {
    /// Puts one around the store of a service; it can be had once the service has started.
    pub fn in_setup(setup: Setup) -> (Setup, impl Fn() -> Arc<Self>) {
        let made = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&made);
        let setup = setup.wrap(Arc::new(move |store| {
            let store = Self::around(store);
            *keep.lock().expect("no panic") = Some(Arc::clone(&store));
            store
        }));
        (setup, move || made.lock().expect("no panic").clone().expect("the service has started"))
    }
}

impl Service {
    /// Posts a callback that is to be answered 200; answers its outcome.
    pub async fn outcome(&self, url: &str, body: impl Into<reqwest::Body>) -> String {
        outcome(&self.post_to(url, body).await)
    }

    /// Posts a callback with these headers and no others of ours.
    pub async fn post_with(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.request_to(Method::POST, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    }

    pub async fn deliveries(&self, id: &str) -> Vec<Value> {
        self.rows(id, "deliveries").await
    }

    pub async fn events(&self, id: &str) -> Vec<Value> {
        self.rows(id, "events").await
    }

    /// The rows of every page.
    async fn rows(&self, id: &str, list: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/jobs/{id}/{list}?limit=200{cursor}");
            let page = self.get(&path).await.expect(200).json();
            rows.extend(page[list].as_array().expect("a list").iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    pub async fn event_types(&self, id: &str) -> Vec<String> {
        self.events(id).await.iter().map(|event| text(&event["type"]).to_owned()).collect()
    }

    /// Fails unless a delivery's bytes are these, and everything said about them is right.
    #[track_caller]
    pub fn holds(&self, delivery: &Value, bytes: &[u8]) -> impl Future<Output = ()> {
        assert_eq!(delivery["bytes"], bytes.len());
        assert_eq!(delivery["sha256"], sha256(bytes));
        let path = format!("/v1/deliveries/{}/body", text(&delivery["id"]));
        async move { assert_eq!(self.get(&path).await.expect(200).body, bytes) }
    }
}

/// What a 200 says became of the callback.
#[track_caller]
pub fn outcome(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let received = answer.json();
    assert_eq!(received.as_object().map(serde_json::Map::len), Some(1), "{received}");
    text(&received["outcome"]).to_owned()
}

/// A connection whose bytes the test sends itself.
pub struct Wire(TcpStream);

impl Wire {
    /// To an address such as `http://127.0.0.1:8085/callbacks/…`, of which the path is left out.
    pub async fn to(url: &str) -> Self {
        let host = url::Url::parse(url).expect("an address");
        let port = host.port().expect("a port");
        Self(TcpStream::connect(("127.0.0.1", port)).await.expect("a connection"))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.0.write_all(bytes.as_ref())).await.expect("it takes the bytes");
    }

    /// Reads until what came ends like this.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            match within(self.0.read_u8()).await {
                Ok(byte) => read.push(byte),
                Err(_) => panic!("it ended with {}", String::from_utf8_lossy(&read)),
            }
        }
        String::from_utf8(read).expect("text")
    }

    /// Reads to the end: the request has to ask for `connection: close`.
    pub async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        within(self.0.read_to_end(&mut read)).await.expect("the other side closes");
        String::from_utf8(read).expect("text")
    }
}

/// The head of a `POST` that asks for `connection: close`, its `headers` each with its line end.
pub fn post_head(url: &str, headers: &str) -> String {
    let url = url::Url::parse(url).expect("an address");
    format!("POST {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n", url.path())
}
