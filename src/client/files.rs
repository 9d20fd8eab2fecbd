//! Scans on their way to the service and outputs on their way from it, in constant memory.
//!
//! Used by `submit` and `jobs`. The invariants: the API key goes to the service alone, never to a
//! storage that it names; a redirect never leads from https to http; no error shows a signed link;
//! a transfer that stands still ends.

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

/// Bytes read of a file at a time: few enough to hold, enough that reading costs nothing.
const PIECE: usize = 256 * 1024;

/// How long a download may bring nothing; storages throttle, but they do not pause.
const DOWNLOAD_STALL: Duration = Duration::from_secs(60);

/// For the words of a storage that refuses.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Where Azure's storage puts its code beside the body, or in place of one.
const AZURE_ERROR_CODE: &str = "x-ms-error-code";

/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// A file to be uploaded, open at its beginning.
#[derive(Debug)]
pub struct Source {
    pub file: File,
    /// Bytes that are sent; a file that grows meanwhile is cut here.
    pub length: u64,
    /// For the storage: what its link was signed for. None unless its caller names some, since a
    /// header that a link does not expect makes it void.
    pub headers: HeaderMap,
}

/// What is there of a file whose download was cut.
#[derive(Clone, Debug)]
pub struct Partial {
    pub length: u64,
    /// Strong; names the file that the rest must belong to.
    pub etag: String,
}

/// What is to be downloaded.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name of the output.
    pub output: &'a str,
    /// Of the file it is to become, with its extension.
    pub file_name: &'a str,
    /// What is there of it.
    pub partial: Option<&'a Partial>,
}

/// Why an output does not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    Service(#[from] ClientError),
    /// The Engine's storage answered, but not with the file.
    #[error("the Engine's storage at {origin} answered {refusal}")]
    Refused { origin: String, refusal: StorageRefusal },
    /// The service's redirect leads to an address that is not followed.
    #[error(
        "the service leads to an address that is not followed: only https is, or http from a service on http, without a user name"
    )]
    NotFollowed,
    /// Whoever was to send it cannot be reached, or fell silent midway.
    #[error("{0} does not send it to its end")]
    Broken(String),
    /// It comes packed in a way that is not unpacked.
    #[error("{origin}: {reason}")]
    Packed { origin: String, reason: String },
    /// It comes packed, and the bytes are damaged.
    #[error("the packed bytes from {0} are damaged")]
    Damaged(String),
}

impl DownloadError {
    /// A status that is of no use, whatever follows it.
    fn unread(origin: String, status: u16) -> Self {
        Self::Refused { origin, refusal: StorageRefusal::read(status, None, b"") }
    }

    /// Whether another try may well bring it.
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

    /// Whether the Engine's link has expired, as the storage says, or may have, since it says
    /// nothing at all.
    pub fn is_dead_link(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.is_expired || refusal.is_bare())
    }
}

/// An output as it comes.
pub struct Download {
    response: Response,
    /// Who sends it, for messages.
    sender: String,
    /// While it comes packed.
    unpacker: Option<Unpacker>,
    /// What has come packed and is not unpacked yet.
    packed: Bytes,
    /// The place in the file of the first byte that comes: 0, or what was there already.
    pub offset: u64,
    /// Bytes of the whole file, if the sender says.
    pub total: Option<u64>,
    pub etag: Option<String>,
    /// Of the whole file, in lower-case hexadecimal; known of what the service itself keeps.
    pub sha256: Option<String>,
}

impl Client {
    /// Streams a file to a job's input; `sent` hears how many bytes have left each time.
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

    /// Has the Engine told that an input is uploaded.
    pub async fn notify(
        &self,
        job: JobId,
        name: &str,
    ) -> Result<Answer<api::JobView>, ClientError> {
        let path = ["jobs", &job.to_string(), "inputs", name, "notify"];
        self.answer(self.request_at(Method::POST, &path)).await
    }

    /// Opens an output of this file name, from its beginning or after what is there of it; the sender decides.
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

    /// Follows the service to the Engine's storage, without the key.
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

    /// Whether a redirect of the service is followed. The service has judged where it leads; here
    /// it must not weaken the connection that the caller chose.
    fn may_follow(&self, link: &Url) -> bool {
        let is_secure = link.scheme() == "https";
        let is_as_secure = is_secure || link.scheme() == "http" && self.base.scheme() == "http";
        is_as_secure && link.username().is_empty() && link.password().is_none()
    }

    /// A request below `/v1`; a segment may hold anything.
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
            // Its length, and the name of its bytes, are those of what is packed.
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

    /// The next bytes as they are sent.
    async fn sent_piece(&mut self) -> Result<Option<Bytes>, DownloadError> {
        match tokio::time::timeout(DOWNLOAD_STALL, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            _ => Err(self.broken()),
        }
    }

    /// The error of one that ended before its end.
    pub fn broken(&self) -> DownloadError {
        DownloadError::Broken(self.sender.clone())
    }
}

/// The head of an answer; `None` if there is none.
async fn begun(request: RequestBuilder) -> Option<Response> {
    tokio::time::timeout(DOWNLOAD_STALL, request.send()).await.ok()?.ok()
}

/// What a storage says in place of a file, as far as it comes at once.
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

/// Asks for the rest of a file, or for all of it should it be another one by now.
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

/// Returns when nothing has moved for as long as an answer may take.
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
