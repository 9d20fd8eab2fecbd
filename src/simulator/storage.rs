//! The Engine's object store: pre-signed links that expire, uploads of inputs, downloads of outputs.
//! Called by the router; `submission` and `result` make the links.
//! Invariant: a link opens one file for one method until it expires, and nothing else.

use std::{pin::pin, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::connection::{Ending, paced_body};
use super::job::{AcceptedJob, Output, OutputStatus, Upload};
use super::{Options, Refusal, Simulator, hex, mesh, upload_check};

/// What is kept of an input; a full CBCT would fill the memory after a few jobs.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

/// A file of a job: inputs can be put, outputs can be got.
#[derive(Clone, Copy)]
pub(super) enum StoredFile<'a> {
    Input(&'a str),
    Output(&'a str),
}

impl StoredFile<'_> {
    fn segments(&self) -> [&str; 2] {
        match self {
            Self::Input(name) => ["inputs", name],
            Self::Output(name) => ["outputs", name],
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Input(_) => "PUT",
            Self::Output(_) => "GET",
        }
    }
}

/// The query string of a link.
#[derive(Deserialize)]
pub(super) struct Grant {
    /// Milliseconds since 1970.
    expires: i64,
    /// Makes every signing differ from the one before.
    serial: u64,
    signature: String,
}

impl Simulator {
    pub(super) fn link(&self, job: &AcceptedJob, file: StoredFile<'_>, life: Duration) -> String {
        let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let expires = Timestamp::now().as_millisecond().saturating_add(life);
        let serial = self.next_link_serial();
        let signature = self.signature(&job.engine_job_id, file, (expires, serial));
        let mut link = job.address(&["storage", &job.engine_job_id]);
        link.path_segments_mut().expect("an http address has a path").extend(file.segments());
        link.query_pairs_mut()
            .append_pair("expires", &expires.to_string())
            .append_pair("serial", &serial.to_string())
            .append_pair("signature", &signature);
        link.into()
    }

    fn signature(&self, job: &str, file: StoredFile<'_>, (expires, serial): (i64, u64)) -> String {
        let [folder, name] = file.segments();
        let signed = format!("{} {job} {folder} {name} {expires} {serial}", file.method());
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.shared.signing_key)
            .expect("HMAC takes a key of any length");
        mac.update(signed.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    fn check_link(&self, job: &str, file: StoredFile<'_>, grant: &Grant) -> Result<(), Refusal> {
        let refused = |reason| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        if self.signature(job, file, (grant.expires, grant.serial)) != grant.signature {
            return refused("the signature does not match");
        }
        let expired = Timestamp::now().as_millisecond() >= grant.expires;
        match expired || self.state().options.expire_links {
            true => refused("the link has expired"),
            false => Ok(()),
        }
    }
}

impl AcceptedJob {
    /// An address under which the submitter reaches the simulator.
    pub(super) fn address(&self, segments: &[&str]) -> Url {
        let mut address =
            Url::parse(&self.origin).expect("an origin is checked when a job is accepted");
        address.path_segments_mut().expect("an http address has a path").extend(segments);
        address
    }
}

/// `PUT /storage/{job}/inputs/{name}`
pub(super) async fn upload(
    State(simulator): State<Simulator>,
    Path((engine_job_id, name)): Path<(String, String)>,
    Query(grant): Query<Grant>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    simulator.change(|state| state.requests.uploads += 1);
    simulator.check_link(&engine_job_id, StoredFile::Input(&name), &grant)?;
    let options = simulator.options();
    if let Some(status) = options.upload_answer {
        return Err(Refusal::by_option(status));
    }
    let sized = request.headers().contains_key(header::CONTENT_LENGTH);
    if options.require_content_length && !sized {
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "Content-Length is needed"));
    }
    let (parts, body) = request.into_parts();
    let upload = Upload::collect(parts.headers, body.into_data_stream())
        .await
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    store(&simulator, (&engine_job_id, &name), upload)
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
    /// Takes a body of any size in constant memory.
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

/// `GET /storage/{job}/outputs/{name}`
pub(super) async fn download(
    State(simulator): State<Simulator>,
    Path((engine_job_id, name)): Path<(String, String)>,
    Query(grant): Query<Grant>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    simulator.change(|state| state.requests.downloads += 1);
    simulator.check_link(&engine_job_id, StoredFile::Output(&name), &grant)?;
    let job = simulator.job(&engine_job_id).ok_or_else(|| Refusal::not_found("job"))?;
    let is_it = |output: &&Output| {
        output.file_name() == name && output.status == Some(OutputStatus::Available)
    };
    let output = job.outputs.iter().find(is_it).ok_or_else(|| Refusal::not_found("output"))?;
    let options = simulator.options();
    let ending = match simulator.strikes(|options| &mut options.cut_downloads) {
        true => Ending::Broken,
        false => Ending::Complete,
    };
    let part = Part::of(mesh::file(&job, output), &headers, &options)?;
    Ok(part.into_response(&options, ending))
}

/// The bytes that a download asks for.
struct Part {
    bytes: Bytes,
    etag: String,
    /// `Content-Range`, for a part of the file.
    range: Option<String>,
}

impl Part {
    fn of(file: Bytes, headers: &HeaderMap, options: &Options) -> Result<Self, Refusal> {
        let etag = format!("\"{}\"", &hex(&Sha256::digest(&file))[..32]);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let fresh = text(header::IF_RANGE).is_none_or(|known| known == etag);
        let range = text(header::RANGE).filter(|_| fresh && !options.ignore_ranges);
        let Some((first, last)) = range.and_then(|range| bounds(range, file.len())) else {
            return Ok(Self { bytes: file, etag, range: None });
        };
        if first > last {
            let mut refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
            refusal.add_header(header::CONTENT_RANGE, Some(format!("bytes */{}", file.len())));
            return Err(refusal);
        }
        let range = Some(format!("bytes {first}-{last}/{}", file.len()));
        Ok(Self { bytes: file.slice(first..=last), etag, range })
    }

    fn into_response(self, options: &Options, ending: Ending) -> Response {
        let length = (self.bytes.len() as i64).saturating_add(options.lie_length).max(0);
        let sent = match ending {
            Ending::Complete => self.bytes,
            Ending::Broken => self.bytes.slice(..self.bytes.len() / 2),
        };
        let body: Body = paced_body(sent, options.throttle, ending);
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, self.etag),
        ];
        match self.range {
            None => (headers, body).into_response(),
            Some(range) => {
                let range = [(header::CONTENT_RANGE, range)];
                (StatusCode::PARTIAL_CONTENT, headers, range, body).into_response()
            }
        }
    }
}

/// First and last byte of a single range; a beginning past the end comes out as an empty one.
fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = length.checked_sub(1)?;
    if first.is_empty() {
        let suffix = last.parse::<usize>().ok()?;
        return Some((length - suffix.min(length), end));
    }
    let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
    Some((first.parse().ok()?, last))
}
