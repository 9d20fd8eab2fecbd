//! Connections that a handler can close without a byte of answer.
//!
//! `Simulator::start` serves through `SeverableListener`; handlers get their `Connection` from
//! `ConnectInfo`. Invariant: after `sever` nothing more is read from or written to that socket.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::connect_info::Connected,
    response::Response,
    serve::{IncomingStream, Listener},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes of a piece: large enough to be fast, small enough to stop midway.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces per second of a throttled body, so that it moves steadily.
const PIECES_PER_SECOND: u64 = 20;

/// Accepts connections until `stop`, then severs all of them.
pub(super) struct SeverableListener {
    pub(super) listener: TcpListener,
    pub(super) stop: CancellationToken,
}

impl Listener for SeverableListener {
    type Io = SeverableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SeverableStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Answers are small: without this, delayed acknowledgements slow every keep-alive call.
        stream.set_nodelay(true).ok();
        let connection = Connection(self.stop.child_token());
        let severed = Box::pin(connection.0.clone().cancelled_owned());
        (SeverableStream { stream, connection, severed }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The handler's handle to the connection of its request.
#[derive(Clone)]
pub(super) struct Connection(CancellationToken);

impl Connection {
    /// Closes the socket; the response only satisfies the handler's type and is never written.
    pub(super) fn sever(&self) -> Response {
        self.0.cancel();
        Response::default()
    }
}

impl Connected<IncomingStream<'_, SeverableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, SeverableListener>) -> Self {
        stream.io().connection.clone()
    }
}

pub(super) struct SeverableStream {
    stream: TcpStream,
    connection: Connection,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl SeverableStream {
    fn check(&self) -> io::Result<()> {
        match self.connection.0.is_cancelled() {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for SeverableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Polled as a future, so that severing wakes a connection that waits for its peer.
        if self.severed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SeverableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    /// The connection breaks; the caller announces a larger length.
    Broken,
}

/// The size of a body's pieces at `throttle` bytes per second (0: unlimited).
pub(super) fn piece_bytes(throttle: u64) -> usize {
    match throttle {
        0 => PIECE_BYTES,
        _ => (throttle / PIECES_PER_SECOND).clamp(1, PIECE_BYTES as u64) as usize,
    }
}

/// A body sent piece by piece, at `throttle` bytes per second (0: unlimited).
pub(super) fn paced_body(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    throttle: u64,
    ending: Ending,
) -> Body {
    Body::from_stream(stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        let Some(piece) = pieces.next() else {
            if ending == Ending::Complete {
                return None;
            }
            // Yield to the connection once, so that what was sent is flushed before the break.
            tokio::task::yield_now().await;
            return Some((Err(io::Error::other("broken on purpose")), None));
        };
        if throttle > 0 {
            tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / throttle as f64)).await;
        }
        Some((Ok(piece), Some(pieces)))
    }))
}
