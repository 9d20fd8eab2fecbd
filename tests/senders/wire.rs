//! A sender that writes what it is told, byte by byte, and reads what comes back.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::program::{DEADLINE, json};

pub struct Sender {
    pub stream: TcpStream,
    /// Read and not yet understood.
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Checks that it is a problem with this status and code.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert!(self.headers.contains_key("x-request-id"));
        let problem = json(&self.body);
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
    }
}

impl Sender {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("a connection")
    }

    pub async fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = timeout(DEADLINE, TcpStream::connect(address)).await.expect("in time")?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends bytes; that nobody takes them any more shows in the answer.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes.as_ref())).await.expect("in time");
    }

    /// Sends bytes, and stops when an answer comes.
    pub async fn send_until_answered(&mut self, bytes: &[u8]) -> Option<Answer> {
        for piece in bytes.chunks(64 * 1024) {
            let (mut reading, mut writing) = self.stream.split();
            tokio::select! {
                sent = writing.write_all(piece) => if sent.is_err() { break },
                _ = reading.read_buf(&mut self.read) => break,
            }
        }
        self.answer().await
    }

    pub async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        self.send(head(path, &format!("content-length: {}\r\n", body.len()))).await;
        self.send(body).await;
    }

    /// The next answer; `None` if the connection ended before it was whole.
    pub async fn answer(&mut self) -> Option<Answer> {
        timeout(DEADLINE, self.next_answer())
            .await
            .expect("an answer or an end before the deadline")
    }

    async fn next_answer(&mut self) -> Option<Answer> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read_more().await?,
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length =
            headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
        while self.read.len() < length {
            self.read_more().await?;
        }
        let body = self.read.drain(..length).collect();
        Some(Answer { status, headers, body })
    }

    async fn read_more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// Waits until the other side has ended the connection; nothing may come before.
    pub async fn assert_ended(&mut self) {
        let more = timeout(DEADLINE, self.read_more()).await.expect("an end before the deadline");
        assert!(more.is_none() && self.read.is_empty(), "{:?}", self.read);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }
}

/// The head of a callback; `more` are further headers, each with its line break.
pub fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n")
}
