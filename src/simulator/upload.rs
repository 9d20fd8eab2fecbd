//! Uploads of inputs to the Engine's object store.
//!
//! Called by the router; `processing` collects fetched inputs here. Uploads of any size need
//! constant memory, and one that breaks off leaves nothing.

use std::{pin::pin, time::Duration};

use axum::{
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::connection::Connection;
use super::fault::FileFault;
use super::job::Upload;
use super::link::{Grant, StoredFile};
use super::{Refusal, Simulator, hex, upload_check};

/// Bytes kept of an input; full CBCTs would fill the memory after a few jobs.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// `PUT /storage/{job}/inputs/{name}`
pub(super) async fn upload(
    State(simulator): State<Simulator>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    Path((engine_job_id, name)): Path<(String, String)>,
    Query(grant): Query<Grant>,
    request: Request,
) -> Result<Response, Refusal> {
    simulator.change(|state| state.requests.uploads += 1);
    simulator.check_link(&engine_job_id, StoredFile::Input(&name), &grant)?;
    let file = format!("{engine_job_id}/{name}");
    let options = simulator.options();
    if let Some(status) = options.upload_answer
        && simulator.strikes_file(FileFault::AnswerUpload, &file)
    {
        return Err(Refusal::by_option(status));
    }
    let (parts, body) = request.into_parts();
    let length = announced_length(&parts.headers);
    if options.require_content_length && length.is_none() {
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "Content-Length is needed"));
    }
    let pieces = throttled(body.into_data_stream(), options.throttle);
    if simulator.strikes_file(FileFault::CutUpload, &file) {
        read_away(pieces, options.cut_after.or(length.map(|length| length / 2))).await;
        return Ok(connection.sever());
    }
    let upload = Upload::collect(parts.headers, pieces)
        .await
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    store(&simulator, (&engine_job_id, &name), upload).map(IntoResponse::into_response)
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The stream at `throttle` bytes per second (0: unlimited).
fn throttled<E>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
    throttle: u64,
) -> impl Stream<Item = Result<Bytes, E>> {
    pieces.and_then(move |piece| async move {
        if throttle > 0 {
            sleep(Duration::from_secs_f64(piece.len() as f64 / throttle as f64)).await;
        }
        Ok(piece)
    })
}

/// Reads `size_bytes` bytes, or one piece, and drops them, so that the sender believes they were
/// accepted.
async fn read_away<E>(pieces: impl Stream<Item = Result<Bytes, E>>, size_bytes: Option<u64>) {
    let (mut pieces, mut read) = (pin!(pieces), 0);
    while let Ok(Some(piece)) = pieces.try_next().await {
        read += piece.len() as u64;
        if read >= size_bytes.unwrap_or(0) {
            return;
        }
    }
}

fn store(
    simulator: &Simulator,
    (engine_job_id, name): (&str, &str),
    upload: Upload,
) -> Result<StatusCode, Refusal> {
    simulator.change(|state| {
        let check = state.options.check_uploads;
        let input = state.job_mut(engine_job_id).and_then(|job| job.input_mut(name));
        let input = input.ok_or_else(|| Refusal::not_found("input"))?;
        if check {
            upload_check::check(&input.extension, &upload)
                .map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
        }
        input.upload = Some(upload);
        Ok(StatusCode::OK)
    })
}

impl Upload {
    /// Reads a body of any size in constant memory.
    pub(super) async fn collect<E>(
        headers: HeaderMap,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Self, E> {
        let mut pieces = pin!(pieces);
        let (mut size_bytes, mut digest, mut content) = (0, Sha256::new(), BytesMut::new());
        while let Some(piece) = pieces.try_next().await? {
            size_bytes += piece.len() as u64;
            digest.update(&piece);
            let kept = piece.len().min(MAX_KEPT_BYTES - content.len());
            content.extend_from_slice(&piece[..kept]);
        }
        let (sha256, content) = (hex(&digest.finalize()), content.freeze());
        Ok(Self { size_bytes, sha256, headers, content })
    }
}
