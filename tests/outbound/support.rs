//! What the tests of `finishline::outbound` share: tables of hosts, a name server in memory and
//! servers on loopback that count who connects.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use finishline::outbound::{Lookup, Outbound, Permissions};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

pub const GUARDED: Permissions = Permissions { allow_private: false, allow_http: false };
pub const HTTP: Permissions = Permissions { allow_private: false, allow_http: true };
pub const LIFTED: Permissions = Permissions { allow_private: true, allow_http: true };

/// Literal addresses, one family per line.
pub const FORBIDDEN_ADDRESSES: &str = "
    127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.255 127.0.1.1
    0.0.0.0 0.0.0.1 0.1.2.3 0.255.255.255
    10.0.0.0 10.0.0.5 10.1.2.3 10.255.255.255
    172.16.0.0 172.16.0.1 172.20.10.1 172.31.255.255
    192.168.0.0 192.168.0.1 192.168.1.1 192.168.255.255
    169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255 168.63.129.16
    100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
    192.0.0.0 192.0.0.192 192.0.0.255 192.88.99.1
    192.0.2.1 198.51.100.1 203.0.113.255 198.18.0.1 198.19.255.255
    224.0.0.1 239.255.255.250 239.255.255.255
    240.0.0.1 254.1.2.3 255.255.255.254 255.255.255.255
    [::] [::1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::0.0.0.1] [::2]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:10.0.0.5] [0:0:0:0:0:ffff:c0a8:101] [::ffff:0.0.0.0]
    [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::ffff:100.64.0.1] [::ffff:255.255.255.255]
    [::127.0.0.1] [::7f00:1] [::10.0.0.5] [::192.168.1.1] [::169.254.169.254] [::8.8.8.8]
    [::ffff:0:127.0.0.1] [::ffff:0:10.0.0.5]
    [2002:7f00:1::] [2002:7f00:1::1] [2002:a00:5::] [2002:c0a8:101::1] [2002:a9fe:a9fe::] [2002:ac10:1::]
    [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::10.0.0.5] [64:ff9b::a9fe:a9fe] [64:ff9b::192.168.1.1]
    [64:ff9b:1::127.0.0.1] [64:ff9b:1::a00:5] [64:ff9b:1:7f00:0:100::] [64:ff9b:1:ffff:ffff:ffff:8.8.8.8]
    [2001:0:7f00:1::] [2001:0:a00:5:0:0:f7f7:f7f7] [2001::80ff:fffe] [2001:0:4136:e378:8000:63bf:5601:5601]
    [2001:0:808:808:0:0:f5ff:fffa] [2001:0:808:808::3f57:fefe] [2001:20::1] [2001:2::1]
    [fc00::] [fc00::1] [fd00::1] [fd00:ec2::254] [fdff:ffff::1]
    [fe80::] [fe80::1] [fe80::a9fe:a9fe] [febf:ffff::1]
    [fec0::1] [feff::1] [ff00::1] [ff02::1] [ff0e::1] [ffff::1]
    [2001:db8::1] [2001:db8:ffff::1] [3fff::1] [3fff:fff::1] [100::1] [5f00::1] [4000::1] [200::1]
    [2a00:1450::5efe:10.0.0.5] [2a00:1450::200:5efe:127.0.0.1]
";

/// Other spellings of forbidden addresses, as a URL may carry them.
pub const FORBIDDEN_SPELLINGS: &str = "
    127.1 127.0.1 127.65530 0 0.0 2130706433 017700000001 0x7f000001 0X7F.1 0x7f.0x0.0x0.0x1
    0177.0.0.1 0177.0.0.01 00000177.1 0x7f.0.0.1 127.0.0.0x1 0x7f.1 0177.0x0.1 127.0.0.1. 0x7f000001.
    10.5 012.0.0.5 0xa.5 0x0a000005 167772165 10.0.5 012.0.5 10.0.0.5.
    3232235777 0xc0a80101 0300.0250.1.1 0xc0.0xa8.0x1.0x1 192.168.257 192.11010305
    2852039166 0xa9fea9fe 0251.0376.0251.0376 0xa9.0xfe.0xa9.0xfe 169.254.43518 169.16689662
    2886729729 0254.020.0.1 0xac100001 1681915905 0x64400001 4294967295 0xffffffff 037777777777
    %31%32%37.0.0.1 127%2e0%2e0%2e1 127。0。0。1 127．0．0．1 １２７.0.0.1 ①②⑦.⓪.⓪.① %EF%BC%91%EF%BC%92%EF%BC%97.0.0.1
    [::ffff:7F00:0001] [0::1] [::0001] [0:0::0:1]
    localhost LOCALHOST LocalHost localhost. localhost.. a.localhost a.b.localhost. x.LOCALHOST. .localhost
    %6cocalhost loc%61lhost ｌｏｃａｌｈｏｓｔ ⓛocalhost localhost。 local\u{ad}host
";

/// Hosts on the internet, some next door to a forbidden block.
pub const PUBLIC: &str = "
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0
    198.17.255.255 198.20.0.0 223.255.255.255 134744072 0x08080808
    [2606:4700:4700::1111] [2a00:1450:4001::200e] [2001:4860:4860::8888] [2001:200::1] [2003::1]
    [::ffff:8.8.8.8] [64:ff9b::8.8.8.8] [2a00:1450::5efe:8.8.8.8]
    example.com files.example.com. localhost.example.com notlocalhost xn--bcher-kva.example bücher.example
";

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
impl Lookup for Names {
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
