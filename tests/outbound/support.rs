//! What the tests of `finishline::outbound` share: a name server in memory and servers on loopback
//! that count who connects.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use finishline::outbound::{Outbound, Permissions, Resolver};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

pub const GUARDED: Permissions = Permissions { allow_private: false, allow_http: false };
pub const HTTP: Permissions = Permissions { allow_private: false, allow_http: true };
pub const LIFTED: Permissions = Permissions { allow_private: true, allow_http: true };

/// A name server in memory; counts the questions.
#[derive(Default)]
pub struct Names {
    table: Mutex<HashMap<String, Vec<IpAddr>>>,
    pub questions: AtomicUsize,
}

impl Names {
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        let mut table = self.table.lock().unwrap();
        table.insert(name.to_owned(), addresses.collect());
    }
}

#[async_trait::async_trait]
impl Resolver for Names {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let found = self.table.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

pub fn names(name: &str, addresses: &[&str]) -> Arc<Names> {
    let names = Names::default();
    names.set(name, addresses);
    Arc::new(names)
}

pub fn outbound(permissions: Permissions) -> Outbound {
    Outbound::new(permissions, &[]).unwrap()
}

pub fn url(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A listener that answers every connection with the same bytes, then hangs up.
pub struct Server {
    pub host: &'static str,
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub async fn answering(host: &'static str, answer: &'static str) -> io::Result<Self> {
        let listener = TcpListener::bind(format!("{host}:0")).await?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { host, port, connections })
    }

    pub async fn local(answer: &'static str) -> Self {
        Self::answering("127.0.0.1", answer).await.unwrap()
    }

    pub fn url(&self, host: &str) -> Url {
        url(&format!("http://{host}:{}/file?token=secret", self.port))
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

pub async fn status(outbound: &Outbound, url: &Url) -> u16 {
    outbound.foreign(Method::GET, url).unwrap().send().await.unwrap().status().as_u16()
}

pub async fn failure(outbound: &Outbound, url: &Url) -> reqwest::Error {
    outbound.foreign(Method::GET, url).unwrap().send().await.expect_err(url.as_str())
}
