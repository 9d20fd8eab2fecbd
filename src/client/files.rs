//! Uploads of scans to the service and downloads of outputs, in constant memory.
//!
//! Used by `submit` and `jobs`. The API key goes to the service only, never to a storage that the
//! service names; a redirect never leads from https to http; no error shows a signed link; a
//! stalled transfer ends with an error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap,
        HeaderValue, IF_RANGE, LOCATION, RANGE,
    },
};
use tokio::{fs::File, io::AsyncReadExt};
use tokio_util::io::ReaderStream;
use url::Url;

use super::{ANSWER_TIMEOUT, Answer, Client, ClientError};
use crate::{
    api,
    domain::{
        content_coding::{ContentCoding, Unpacker},
        ids::JobId,
        storage::{MAX_REFUSAL_BYTES, StorageRefusal},
    },
};

/// Bytes read from a file at a time: few enough to hold in memory, enough for cheap reads.
const PIECE: usize = 256 * 1024;

/// Longest time without a byte in a download: storages throttle, but they do not pause.
const DOWNLOAD_STALL: Duration = Duration::from_secs(60);

/// Time limit for reading the body of a storage's refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Header in which Azure's storage sends its error code, with or without a body.
const AZURE_ERROR_CODE: &str = "x-ms-error-code";

/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// A file to upload, open at its start.
#[derive(Debug)]
pub struct Source {
    pub file: File,
    /// Bytes to send; if the file grows during the upload, the rest is not sent.
    pub length: u64,
    /// Headers for the storage that the link was signed with. None unless the caller names some: a
    /// header that was not signed makes a link invalid.
    pub headers: HeaderMap,
}

/// The part of a file that an interrupted download left.
#[derive(Clone, Debug)]
pub struct Partial {
    pub length: u64,
    /// Strong ETag of the file; the rest must come from the same file.
    pub etag: String,
}

/// What to download.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name of the output.
    pub output: &'a str,
    /// Name of the finished file, with its extension.
    pub file_name: &'a str,
    /// The part that is there already.
    pub partial: Option<&'a Partial>,
}

/// Why an output could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    Service(#[from] ClientError),
    /// The Engine's storage answered, but not with the file.
    #[error("the Engine's storage at {origin} answered {refusal}")]
    Refused { origin: String, refusal: StorageRefusal },
    /// The service redirects to an address that the client does not follow.
    #[error(
        "the service leads to an address that is not followed: only https is, or http from a service on http, without a user name"
    )]
    NotFollowed,
    /// The sender cannot be reached, or stopped sending midway.
    #[error("{0} does not send it to its end")]
    Broken(String),
    /// The output has a content coding that the client cannot decode.
    #[error("{origin}: {reason}")]
    Packed { origin: String, reason: String },
    /// The compressed bytes are damaged.
    #[error("the packed bytes from {0} are damaged")]
    Damaged(String),
}

impl DownloadError {
    /// A status that the client cannot use; the body is not read.
    fn unread(origin: String, status: u16) -> Self {
        Self::Refused { origin, refusal: StorageRefusal::read(status, None, b"") }
    }

    /// Whether a retry may succeed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Service(error) => error.is_passing(),
            Self::Refused { refusal, .. } => {
                refusal.is_passing() || matches!(refusal.status, 206 | 416)
            }
            Self::Broken(_) => true,
            Self::NotFollowed | Self::Packed { .. } | Self::Damaged(_) => false,
        }
    }

    /// Whether the Engine's link has expired: the storage says so, or gives no reason at all, in
    /// which case it may have.
    pub fn is_dead_link(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.is_expired || refusal.is_bare())
    }
}

/// An output while it is downloaded.
pub struct Download {
    response: Response,
    /// The sender, for messages.
    sender: String,
    /// Set while the body is compressed.
    unpacker: Option<Unpacker>,
    /// Received bytes that are not decompressed yet.
    packed: Bytes,
    /// Offset in the file of the first byte that is sent: 0, or the length of the part.
    pub offset: u64,
    /// Bytes of the whole file, if the sender announces them.
    pub total: Option<u64>,
    pub etag: Option<String>,
    /// SHA-256 of the whole file in lower-case hexadecimal; known for the service's own copies.
    pub sha256: Option<String>,
}

impl Client {
    /// Streams a file to a job's input; `sent` is called with the number of bytes of each piece.
    ///
    /// # Errors
    /// The service refused the upload, could not be reached, or nothing was sent for 150 s. Retry
    /// with a new [`Source`] if [`ClientError::is_passing`].
    pub async fn upload(
        &self,
        job: JobId,
        name: &str,
        source: Source,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Answer<api::JobView>, ClientError> {
        let headers = source.headers;
        let moved = Arc::new(AtomicU64::new(0));
        let count = moved.clone();
        let pieces = ReaderStream::with_capacity(source.file.take(source.length), PIECE);
        let pieces = pieces.inspect_ok(move |piece| {
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            sent(piece.len() as u64);
        });
        let request = self.request_at(Method::PUT, &["jobs", &job.to_string(), "inputs", name]);
        let request = request
            .headers(headers)
            .header(CONTENT_LENGTH, source.length)
            .body(Body::wrap_stream(pieces));
        tokio::select! {
            answer = async { self.read(self.send(request).await?).await } => answer,
            () = standstill(&moved) => Err(ClientError::Unreachable(self.base.clone())),
        }
    }

    /// Has the service notify the Engine that an input is uploaded.
    ///
    /// # Errors
    /// The service or the Engine did not accept it; retry if [`ClientError::is_passing`].
    pub async fn notify(
        &self,
        job: JobId,
        name: &str,
    ) -> Result<Answer<api::JobView>, ClientError> {
        let path = ["jobs", &job.to_string(), "inputs", name, "notify"];
        self.answer(self.request_at(Method::POST, &path)).await
    }

    /// Opens an output at its start or, if the sender agrees, where the part ends; see
    /// [`Download::offset`].
    ///
    /// # Errors
    /// The service or the Engine's storage did not send it. Retry if [`DownloadError::is_passing`];
    /// after [`DownloadError::is_dead_link`], refresh the job's links first.
    pub async fn download(
        &self,
        job: JobId,
        wanted: Wanted<'_>,
    ) -> Result<Download, DownloadError> {
        let Wanted { output, partial, .. } = wanted;
        let request = self.request_at(Method::GET, &["jobs", &job.to_string(), "outputs", output]);
        let response = begun(ranged(request, partial)).await;
        let response = response.ok_or_else(|| ClientError::Unreachable(self.base.clone()))?;
        if response.status() == StatusCode::TEMPORARY_REDIRECT {
            return self.download_from_storage(&response, wanted).await;
        }
        if !response.status().is_success() {
            return Err(self.refusal(response).await.into());
        }
        let mut download = Download::of(response, self.base.to_string(), wanted)?;
        let digest = download.etag.as_ref().map(|etag| etag.trim_matches('"').to_owned());
        download.sha256 = digest.filter(|digest| digest.len() == DIGEST_DIGITS);
        Ok(download)
    }

    /// Follows the service's redirect to the Engine's storage, without the key.
    async fn download_from_storage(
        &self,
        redirect: &Response,
        wanted: Wanted<'_>,
    ) -> Result<Download, DownloadError> {
        let link = redirect.headers().get(LOCATION).and_then(|link| link.to_str().ok());
        let link = link.and_then(|link| Url::parse(link).ok());
        let link = link.ok_or_else(|| ClientError::Foreign(self.base.clone()))?;
        let origin = link.origin().ascii_serialization();
        if !self.may_follow(&link) {
            return Err(DownloadError::NotFollowed);
        }
        let response = begun(ranged(self.http.get(link.clone()), wanted.partial)).await;
        let response = response.ok_or_else(|| DownloadError::Broken(origin.clone()))?;
        match response.status().is_success() {
            true => Download::of(response, origin, wanted),
            false => {
                let refusal = refusal_of(response).await.without_link(&link);
                Err(DownloadError::Refused { origin, refusal })
            }
        }
    }

    /// Whether to follow a redirect of the service. The service has checked the target; here it
    /// must not weaken the connection that the caller chose.
    fn may_follow(&self, link: &Url) -> bool {
        let is_secure = link.scheme() == "https";
        let is_as_secure = is_secure || link.scheme() == "http" && self.base.scheme() == "http";
        is_as_secure && link.username().is_empty() && link.password().is_none()
    }

    /// A request below `/v1`; segments are percent-encoded.
    fn request_at(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = Url::parse("http://path").expect("an address");
        let mut path = url.path_segments_mut().expect("an http address has a path");
        path.push("v1").extend(segments);
        drop(path);
        self.request(method, url.path())
    }
}

impl Download {
    fn of(response: Response, sender: String, wanted: Wanted<'_>) -> Result<Self, DownloadError> {
        let codings = response.headers().get_all(CONTENT_ENCODING);
        let coding = ContentCoding::read(codings.iter().map(HeaderValue::as_bytes));
        let coding =
            coding.map_err(|reason| DownloadError::Packed { origin: sender.clone(), reason })?;
        let unpacker = (coding == ContentCoding::Gzip).then(|| Unpacker::new(wanted.file_name));
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = header(ETAG).filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let (offset, total) = match (response.status(), wanted.partial) {
            // Content length and ETag describe the compressed bytes.
            (StatusCode::OK, _) if unpacker.is_some() => (0, None),
            (status, _) if unpacker.is_some() => {
                return Err(DownloadError::unread(sender, status.as_u16()));
            }
            (StatusCode::PARTIAL_CONTENT, Some(partial)) => {
                let range = header(CONTENT_RANGE).and_then(content_range);
                match range.filter(|(first, _)| *first == partial.length) {
                    Some(range) => range,
                    None => return Err(DownloadError::unread(sender, 206)),
                }
            }
            (StatusCode::OK, _) => (0, response.content_length()),
            (status, _) => return Err(DownloadError::unread(sender, status.as_u16())),
        };
        let etag = etag.filter(|_| unpacker.is_none());
        let packed = Bytes::new();
        Ok(Self { response, sender, unpacker, packed, offset, total, etag, sha256: None })
    }

    /// The next bytes of the file; `None` at the end.
    ///
    /// # Errors
    /// The download broke off or stalled, or the compressed bytes are damaged. Open the download
    /// again if [`DownloadError::is_passing`]; what was returned before is valid.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, DownloadError> {
        loop {
            if let Some(unpacker) = &mut self.unpacker
                && !self.packed.is_empty()
            {
                let mut rest = &self.packed[..];
                let unpacked = unpacker.step(&mut rest);
                let unpacked = unpacked.map_err(|_| DownloadError::Damaged(self.sender.clone()))?;
                self.packed = self.packed.slice(self.packed.len() - rest.len()..);
                if !unpacked.is_empty() {
                    return Ok(Some(unpacked.into()));
                }
                continue;
            }
            let sent = self.sent_piece().await?;
            if self.unpacker.is_none() {
                return Ok(sent);
            }
            match sent {
                Some(packed) => self.packed = packed,
                None => {
                    let last = self.unpacker.take().map(Unpacker::finish).transpose();
                    let last = last.map_err(|_| self.damaged())?.unwrap_or_default();
                    return Ok((!last.is_empty()).then(|| last.into()));
                }
            }
        }
    }

    fn damaged(&self) -> DownloadError {
        DownloadError::Damaged(self.sender.clone())
    }

    /// The next bytes as sent, not decompressed.
    async fn sent_piece(&mut self) -> Result<Option<Bytes>, DownloadError> {
        match tokio::time::timeout(DOWNLOAD_STALL, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            _ => Err(self.broken()),
        }
    }

    /// The error for a download that ended early.
    pub fn broken(&self) -> DownloadError {
        DownloadError::Broken(self.sender.clone())
    }
}

/// The status and headers of the answer; `None` without one within [`DOWNLOAD_STALL`].
async fn begun(request: RequestBuilder) -> Option<Response> {
    tokio::time::timeout(DOWNLOAD_STALL, request.send()).await.ok()?.ok()
}

/// The refusal that a storage sent in place of a file; reads its body for at most [`REFUSAL_TIME`].
async fn refusal_of(mut response: Response) -> StorageRefusal {
    let status = response.status().as_u16();
    let code = response.headers().get(AZURE_ERROR_CODE).and_then(|code| code.to_str().ok());
    let code = code.map(str::to_owned);
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL_BYTES - body.len())]);
            if body.len() == MAX_REFUSAL_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(REFUSAL_TIME, reading).await;
    StorageRefusal::read(status, code.as_deref(), &body)
}

/// Requests the rest of a file, or the whole file if it has changed since (`If-Range`).
fn ranged(request: RequestBuilder, partial: Option<&Partial>) -> RequestBuilder {
    let request = request.header(ACCEPT_ENCODING, "identity");
    match partial {
        Some(Partial { length, etag }) => {
            request.header(RANGE, format!("bytes={length}-")).header(IF_RANGE, etag)
        }
        None => request,
    }
}

/// The first byte and the whole file's length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()))
}

/// Returns when no byte was sent for [`ANSWER_TIMEOUT`].
async fn standstill(moved: &AtomicU64) {
    let mut before = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(ANSWER_TIMEOUT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_weakens_the_connection() {
        let client =
            |base: &str| Client::new(base.parse().expect("a URL"), None).expect("a client");
        let secure = client("https://finishline.example");
        let plain = client("http://127.0.0.1:8086");
        for (link, from_secure, from_plain) in [
            ("https://store.example/a", true, true),
            ("http://store.example/a", false, true),
            ("http://127.0.0.1:8090/a", false, true),
            ("https://me@store.example/a", false, false),
            ("https://:word@store.example/a", false, false),
            ("file:///etc/passwd", false, false),
            ("javascript:alert(1)", false, false),
        ] {
            let link: Url = link.parse().expect("a URL");
            let followed = (secure.may_follow(&link), plain.may_follow(&link));
            assert_eq!(followed, (from_secure, from_plain), "{link}");
        }
    }
}
