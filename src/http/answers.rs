//! Counts the memory that answers hold until they are sent, against a budget.
//!
//! A layer around the routes that answer with stored data, so that no handler can forget it.
//! Invariant: an answer that does not fit the budget is refused and its memory freed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::{
    Context,
    error::Problem,
    limits::{Overloaded, Room},
};

/// Middleware: counts the memory of an API answer.
pub(super) async fn count(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    Ok(counted(&context, next.run(request).await)?)
}

/// The answer together with the room that it takes. A stream has no known size and accounts for its
/// memory itself.
pub(super) fn counted(context: &Context, response: Response) -> Result<Response, Overloaded> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    let bytes = usize::try_from(bytes).map_err(|_| Overloaded)?;
    Ok(match context.limits.answers.room(bytes)? {
        Some(room) => response.map(|body| Body::new(Counted { body, room: Arc::new(room) })),
        None => response,
    })
}

/// A body that holds its room. Its pieces hold it too, since the connection keeps them after the
/// body is dropped, until the reader has received them.
struct Counted {
    body: Body,
    room: Arc<Room>,
}

/// A piece of such a body.
struct Piece {
    bytes: Bytes,
    _room: Arc<Room>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| Bytes::from_owner(Piece { bytes, _room: self.room.clone() }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
