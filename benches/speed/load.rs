//! The one load generator: every contender is driven by it, over connections that are kept open.
//!
//! It shares the processor's cores with whom it drives, so it does as little as it can: requests
//! are bytes, and of an answer only the status and the length are read.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep_until, timeout},
};

/// An answer that takes longer is none.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Room for the head of an answer and most bodies.
const BUFFER_BYTES: usize = 64 * 1024;

/// Makes the request with this number.
pub type Make = Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

/// What to send, and how.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    /// Numbers of the requests; each is sent at most once.
    pub first: usize,
    pub most: usize,
    /// No request is begun after this; those under way are waited for.
    pub time: Duration,
    /// Requests a second whatever the answers do (an open loop); `None`: each connection sends its
    /// next request once it has its answer (a closed loop).
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub seconds: f64,
    /// Milliseconds, ascending; in an open loop from the time a request was due.
    pub latencies: Vec<f64>,
    /// Numbers of the requests that were answered 2xx or 304.
    pub accepted: Vec<usize>,
    pub refused: usize,
}

impl Outcome {
    /// Accepted requests a second.
    pub fn rate(&self) -> f64 {
        self.accepted.len() as f64 / self.seconds
    }

    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }
}

/// Of ascending values.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(f64::NAN)
}

impl Load {
    pub async fn run(self, make: Make) -> Outcome {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address).await.expect("it listens");
            stream.set_nodelay(true).expect("a setting of the socket");
            streams.push(stream);
        }
        let next = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let mut connections = JoinSet::new();
        for stream in streams {
            connections.spawn(self.clone().connection(stream, began, next.clone(), make.clone()));
        }
        let mut all =
            Outcome { seconds: 0.0, latencies: Vec::new(), accepted: Vec::new(), refused: 0 };
        for one in connections.join_all().await {
            all.latencies.extend(one.latencies);
            all.accepted.extend(one.accepted);
            all.refused += one.refused;
        }
        all.seconds = began.elapsed().as_secs_f64();
        all.latencies.sort_by(f64::total_cmp);
        all
    }

    async fn connection(
        self,
        mut stream: TcpStream,
        began: Instant,
        next: Arc<AtomicUsize>,
        make: Make,
    ) -> Outcome {
        let (mut latencies, mut accepted, mut refused) = (Vec::new(), Vec::new(), 0);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due = match self.rate {
                None => Instant::now(),
                Some(rate) => began + Duration::from_secs_f64(number as f64 / rate),
            };
            if number >= self.most || due - began >= self.time {
                break;
            }
            if self.rate.is_some() {
                sleep_until(due.into()).await;
            }
            let number = self.first + number;
            let request = make(number);
            let exchange = exchange(&mut stream, &request, &mut buffer);
            let status = timeout(ANSWER_TIME, exchange).await.expect("an answer in time");
            latencies.push(due.elapsed().as_secs_f64() * 1000.0);
            match status {
                Ok(200..=299 | 304) => accepted.push(number),
                Ok(_) => refused += 1,
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
        Outcome { seconds: 0.0, latencies, accepted, refused }
    }
}

/// Sends a request; answers the status once the answer is read to its end.
pub async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut [u8],
) -> io::Result<u16> {
    stream.write_all(request).await?;
    let mut filled = 0;
    let end = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let status: u16 = head[9..12].parse().map_err(io::Error::other)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = match length {
        Some(length) => length.trim().parse().map_err(io::Error::other)?,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(io::Error::other("an answer without a length")),
    };
    let mut missing = (end + length).saturating_sub(filled);
    while missing > 0 {
        let most = missing.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        missing -= read;
    }
    Ok(status)
}
