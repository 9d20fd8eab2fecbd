//! Downloads of outputs from the Engine's object store, whole or in ranges, correct or faulty.
//!
//! Called by the router; tests get the expected content from `output_content`. Invariant: `ETag`,
//! `Content-MD5` and the total of `Content-Range` are correct, also when another fault strikes.

use std::ops::Range;

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::connection::{Ending, paced_body, piece_bytes};
use super::content::FileContent;
use super::fault::FileFault;
use super::job::{AcceptedJob, Output, OutputStatus};
use super::link::{Grant, StoredFile};
use super::{Options, Refusal, Simulator, mesh};

/// Azure has no digest of blobs that were written in blocks, as large files are.
const MAX_DIGESTED_BYTES: u64 = 32 * 1024 * 1024;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// The header in which Azure sends the digest of the whole file with a part.
const BLOB_CONTENT_MD5: HeaderName = HeaderName::from_static("x-ms-blob-content-md5");

impl Simulator {
    /// The content of a correct download of an available output.
    pub fn output_content(
        &self,
        engine_job_id: &str,
        kind: &str,
        index: usize,
    ) -> Option<FileContent> {
        let job = self.job(engine_job_id)?;
        let is_it = |output: &&Output| output.kind == kind && output.index == index;
        job.available().find(is_it).map(|output| mesh::content(&job, output))
    }
}

impl AcceptedJob {
    fn available(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter().filter(|output| output.status == Some(OutputStatus::Available))
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
    let mut available = job.available();
    let output = available.find(|output| output.file_name() == name);
    let output = output.ok_or_else(|| Refusal::not_found("output"))?;
    let file = format!("{engine_job_id}/{name}");
    let options = simulator.options();
    if let Some(status) = options.download_answer
        && simulator.strikes_file(FileFault::AnswerDownload, &file)
    {
        return Err(Refusal::by_option(status));
    }
    let content = mesh::content(&job, output);
    let known = Validators { etag: content.etag(), modified: http_date(job.finished_at) };
    let range = wanted(&headers, &known, &content).filter(|_| !options.ignore_ranges);
    let part = Part::of(content, range)?;
    let faults = Faults::draw(&simulator, &options, &file);
    Ok((known.headers(), part.into_response(&options, &faults)).into_response())
}

/// The validators that `If-Range` may name.
struct Validators {
    etag: String,
    modified: String,
}

impl Validators {
    fn headers(&self) -> [(HeaderName, String); 2] {
        [(header::ETAG, self.etag.clone()), (header::LAST_MODIFIED, self.modified.clone())]
    }
}

fn http_date(time: Option<Timestamp>) -> String {
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&time.unwrap_or_default());
    text.expect("no job finishes before the year 0")
}

/// The range that a request asks for: first byte and end (exclusive). One that starts past the end
/// comes out empty.
fn wanted(headers: &HeaderMap, known: &Validators, content: &FileContent) -> Option<Range<u64>> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_fresh = |named: &str| named == known.etag || named == known.modified;
    text(header::IF_RANGE).is_none_or(is_fresh).then_some(())?;
    let (first, last) = text(header::RANGE)?.strip_prefix("bytes=")?.split_once('-')?;
    let size_bytes = content.size_bytes();
    if first.is_empty() {
        let suffix = last.parse::<u64>().ok()?;
        return Some(size_bytes.saturating_sub(suffix)..size_bytes);
    }
    let first = first.parse().ok()?;
    let end = match last {
        "" => size_bytes,
        last => last.parse::<u64>().ok().filter(|last| *last >= first)?.saturating_add(1),
    };
    Some(first..end.min(size_bytes))
}

/// The faults of one download.
struct Faults {
    ending: Ending,
    /// Added to the announced length; if negative, that many bytes fewer are sent and announced.
    lie: i64,
    corrupted: bool,
}

impl Faults {
    fn draw(simulator: &Simulator, options: &Options, file: &str) -> Self {
        let cut = simulator.strikes_file(FileFault::CutDownload, file);
        let lies = options.lie_length != 0 && simulator.strikes_file(FileFault::LieLength, file);
        Self {
            ending: if cut { Ending::Broken } else { Ending::Complete },
            lie: if lies { options.lie_length } else { 0 },
            corrupted: simulator.strikes_file(FileFault::CorruptDownload, file),
        }
    }
}

/// The bytes of one download.
struct Part {
    content: FileContent,
    range: Range<u64>,
    status: StatusCode,
}

impl Part {
    fn of(content: FileContent, range: Option<Range<u64>>) -> Result<Self, Refusal> {
        let size_bytes = content.size_bytes();
        match range {
            None => Ok(Self { content, range: 0..size_bytes, status: StatusCode::OK }),
            Some(range) if range.is_empty() => {
                let mut refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
                refusal.add_header(header::CONTENT_RANGE, Some(format!("bytes */{size_bytes}")));
                Err(refusal)
            }
            Some(range) => Ok(Self { content, range, status: StatusCode::PARTIAL_CONTENT }),
        }
    }

    fn into_response(mut self, options: &Options, faults: &Faults) -> Response {
        let length = self.range.end - self.range.start;
        let length = length.saturating_sub(faults.lie.min(0).unsigned_abs());
        self.range.end = self.range.start + length;
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: String| {
            headers.insert(name, value.try_into().expect("numbers and Base64 are header values"));
        };
        add(header::CONTENT_TYPE, "application/octet-stream".into());
        add(header::ACCEPT_RANGES, "bytes".into());
        if !options.omit_content_length {
            add(
                header::CONTENT_LENGTH,
                length.saturating_add_signed(faults.lie.max(0)).to_string(),
            );
        }
        let is_part = self.status == StatusCode::PARTIAL_CONTENT;
        if options.content_md5 && self.content.size_bytes() <= MAX_DIGESTED_BYTES {
            let name = if is_part { BLOB_CONTENT_MD5 } else { CONTENT_MD5 };
            add(name, STANDARD.encode(self.content.md5()));
        }
        if is_part {
            let (first, last) = (self.range.start, self.range.end.saturating_sub(1));
            add(
                header::CONTENT_RANGE,
                format!("bytes {first}-{last}/{}", self.content.size_bytes()),
            );
        }
        (self.status, headers, self.into_body(options, faults)).into_response()
    }

    fn into_body(self, options: &Options, faults: &Faults) -> Body {
        let Range { start, end } = self.range;
        let length = end - start;
        let sent = match faults.ending {
            Ending::Complete => length,
            Ending::Broken => length.min(options.cut_after.unwrap_or(length / 2)),
        };
        let (middle, end) = (start + sent / 2, start + sent);
        let piece_bytes = piece_bytes(options.throttle);
        let after = if faults.corrupted && sent > 0 { middle + 1 } else { middle };
        let wrong = self.content.pieces(middle..after, 1).map(|byte| Bytes::from(vec![!byte[0]]));
        let before = self.content.pieces(start..middle, piece_bytes);
        let pieces = before.chain(wrong).chain(self.content.pieces(after..end, piece_bytes));
        paced_body(pieces, options.throttle, faults.ending)
    }
}
