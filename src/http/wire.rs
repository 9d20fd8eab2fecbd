//! The socket and the bodies of a connection as hyper uses them; each reports to the connection's
//! progress.
//!
//! Used by `connection`. Invariant: an answer is not cut short by closing while its reader still
//! sends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{kept::Kept, progress::Progress};

/// Bytes that a sender still sends after its answer are read in pieces of this size and discarded.
const FORGOTTEN_BYTES: usize = 16 * 1024;

/// A connection's socket.
pub(super) struct TrackedStream {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(written) => self.progress.wrote(*written.as_ref().unwrap_or(&0)),
            Poll::Pending => self.progress.stalled(),
        }
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.is_head_over() {
            return Poll::Ready(Err(io::Error::other("the head of the request is too large")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.progress.read(buffer.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_about_head(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bytes.iter().find(|piece| !piece.is_empty());
        if first.is_some_and(|first| self.progress.is_about_head(first)) {
            return Poll::Ready(Ok(bytes.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.progress.flushed();
        }
        flushed
    }

    /// Ends the sending side, and lets a sender that is nearly done finish: closing at once would
    /// reset the connection before the answer is read.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_answer_due() {
            return Poll::Ready(Ok(()));
        }
        let must_linger = self.progress.leave();
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if !must_linger {
            return Poll::Ready(Ok(()));
        }
        let mut forgotten = [0; FORGOTTEN_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut forgotten);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            if ready!(read).is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.progress.read(buffer.filled().len());
            if self.progress.has_lingered() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A request's body.
pub(super) struct RequestBody {
    body: Incoming,
    is_ended: bool,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, progress: Arc<Progress>) -> Self {
        Self { body, is_ended: false, progress }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_ended && !self.body.is_end_stream() {
            self.progress.body_left();
        }
    }
}

/// An answer's body.
pub(super) type ResponseBody = Kept<Answering>;

/// Reports to the connection's progress when the answer has been handed over or dropped.
pub(super) struct Answering(pub(super) Arc<Progress>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered();
    }
}
