//! What answers hold in memory until they are sent, counted against their budget.
//!
//! A layer around the routes that answer with what is on record, so that no handler can forget it.
//! The invariant: an answer that finds no room is not sent but refused, and its memory is free.

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
    limits::{Full, Room},
};

/// Middleware: counts what an answer of the API holds.
pub(super) async fn count(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    Ok(counted(&context, next.run(request).await)?)
}

/// The answer with the room that it takes. A stream has no size and holds what it sends by itself.
pub(super) fn counted(context: &Context, response: Response) -> Result<Response, Full> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    let bytes = usize::try_from(bytes).map_err(|_| Full)?;
    Ok(match context.limits.answers.room(bytes)? {
        Some(room) => response.map(|body| Body::new(Counted { body, room: Arc::new(room) })),
        None => response,
    })
}

/// A body whose pieces hold its room, until the last of them is sent.
struct Counted {
    body: Body,
    room: Arc<Room>,
}

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
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let room = &self.room;
        let held = |bytes| Bytes::from_owner(Piece { bytes, _room: room.clone() });
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
