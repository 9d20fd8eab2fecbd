//! The life of one connection, from its first byte to its last.
//!
//! Started by `serve`. Invariant: no sender, however slow, half-open or oversized, holds a
//! connection for longer than the settings allow; a client that is waiting for our answer is never
//! cut.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    response::IntoResponse,
};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use uuid::Uuid;

use super::{
    crowd::{Place, Silent},
    error::Problem,
    headers,
    observe::REQUEST_ID,
    progress::{Deadline, Progress, REFUSAL_TIME},
    serve::Opened,
    wire::{Answering, RequestBody, ResponseBody, TrackedStream},
};
use crate::telemetry;

/// hyper's own limits, above ours: a head between the two is answered with a problem.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
const MAX_PARSED_HEADERS: usize = 512;

/// How a connection ended.
enum End {
    /// The connection closed, cleanly or with an error.
    Closed,
    /// The peer missed a deadline.
    TooSlow,
}

/// Serves a connection to its end.
pub(super) async fn live(stream: TcpStream, peer: SocketAddr, place: Place, opened: &Opened) {
    let progress = Progress::new(opened.connections.timeouts, opened.crowd.clone());
    let progress = Arc::new(progress);
    let silent = opened.crowd.note_silent(place);
    if let Some(_place) = has_begun(&stream, &progress, silent, opened).await {
        // Boxed, so that hyper's state takes no memory for peers that never send a byte.
        Box::pin(talk(stream, peer, progress, opened)).await;
    } else {
        telemetry::HTTP_CUT.of([opened.door.name.into(), "slow".into()]).increment(1);
    }
}

/// Serves a connection from its first byte on.
async fn talk(stream: TcpStream, peer: SocketAddr, progress: Arc<Progress>, opened: &Opened) {
    let Opened { door, connections, .. } = opened;
    let service = RouterService { router: door.router.clone(), peer, progress: progress.clone() };
    let socket = TokioIo::new(TrackedStream::new(stream, progress.clone()));
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_headers(MAX_PARSED_HEADERS)
        .half_close(door.answers_half_closed)
        // hyper has one limit for slow heads and idle connections; ours are separate.
        .header_read_timeout(None)
        .serve_connection(socket, service);
    let end = watch(&mut connection, &progress, &connections.stopping).await;
    let (reason, answer) = match end {
        _ if progress.is_head_over() => {
            ("head-too-large", Some(Problem::HeadersTooLarge.into_response()))
        }
        End::TooSlow if progress.is_mid_head() => {
            ("slow-head", Some(Problem::RequestTimeout.into_response()))
        }
        End::TooSlow => ("slow", None),
        End::Closed => match progress.unreadable() {
            Some(431) => ("head-too-large", Some(Problem::HeadersTooLarge.into_response())),
            Some(_) => ("bad-head", Some(StatusCode::BAD_REQUEST.into_response())),
            None => return,
        },
    };
    telemetry::HTTP_CUT.of([door.name.into(), reason.into()]).increment(1);
    if let Some(answer) = answer {
        // No handler can answer, since there is no request, and perhaps nobody reads this.
        progress.answers_itself();
        let socket = connection.into_parts().io.into_inner();
        let _ = timeout(REFUSAL_TIME, refuse(socket, answer)).await;
    }
}

/// Waits for the first byte, or for the end of the connection or the service. Returns `None` if the
/// connection must end without one. A silent connection costs little more than its socket.
async fn has_begun(
    stream: &TcpStream,
    progress: &Progress,
    silent: Silent,
    opened: &Opened,
) -> Option<Place> {
    let mut first_byte = [0];
    let had_its_time = async {
        while let Some(deadline) = progress.deadline() {
            let (Deadline::End(at) | Deadline::Look(at)) = deadline;
            tokio::time::sleep_until(at).await;
            if let Deadline::End(_) = deadline {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stream.peek(&mut first_byte) => {}
        () = opened.connections.stopping.cancelled() => {}
        () = silent.must_end() => return None,
        () = had_its_time => return None,
    }
    silent.into_place()
}

/// Drives a connection until it closes or the peer misses a deadline.
async fn watch(
    connection: &mut http1::Connection<TokioIo<TrackedStream>, RouterService>,
    progress: &Progress,
    stopping: &CancellationToken,
) -> End {
    let mut stopped = pin!(stopping.cancelled());
    let mut is_stopping = false;
    let mut is_told = false;
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            progress.stop();
        }
        loop {
            if Pin::new(&mut *connection).poll(context).is_ready() {
                return Poll::Ready(End::Closed);
            }
            // hyper closes a fresh connection at once; here its first request may still arrive.
            if !is_stopping || is_told || progress.is_fresh() {
                break;
            }
            is_told = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        loop {
            let Some(deadline) = progress.deadline() else { return Poll::Pending };
            let (Deadline::End(at) | Deadline::Look(at)) = deadline;
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            ready!(alarm.as_mut().poll(context));
            if let Deadline::End(_) = deadline {
                return Poll::Ready(End::TooSlow);
            }
        }
    })
    .await
}

/// The router as a hyper service.
struct RouterService {
    router: Router,
    peer: SocketAddr,
    progress: Arc<Progress>,
}

impl Service<Request<Incoming>> for RouterService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let progress = self.progress.clone();
        progress.request_began();
        let mut request = request.map(|body| RequestBody::new(body, progress.clone()));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let answer = self.router.clone().call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            // The unread rest of the body would be parsed as the next request.
            if progress.is_body_left() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok(response.map(|body| ResponseBody::new(body, Answering(progress))))
        })
    }
}

/// Writes an answer in hyper's place and ends the connection.
async fn refuse(
    mut socket: TrackedStream,
    mut response: axum::response::Response,
) -> std::io::Result<()> {
    headers::complete(&mut response);
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    let id = Uuid::now_v7().to_string();
    let ours = [("connection", "close"), (REQUEST_ID, id.as_str())];
    let ours = ours.into_iter().map(|(name, value)| (name, value.as_bytes()));
    let given = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in given.chain(ours) {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    socket.write_all(&bytes).await?;
    socket.shutdown().await
}
