//! Copies one file from its link into the file store, piece by piece.
//!
//! Called by the mirror worker. Invariants: memory use does not depend on the file's size; a
//! finished copy has the length and every digest that the server gave; no reason for a failure
//! contains the link.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT_ENCODING, IF_RANGE, RANGE, RETRY_AFTER},
};
use sha2::Digest;
use tokio::time::timeout;
use url::Url;

use super::{answer::Head, hashing::Hashing, packed::PackedBytes};
use crate::{
    blobs::{BlobError, BlobWriter, Blobs, FileKey},
    clock::{self, Clock, Stopwatch},
    domain::{
        content_coding::{ContentCoding, Unpacker},
        link,
        mirror::MirroredFile,
        pace::Pace,
        storage::{MAX_REFUSAL_BYTES, StorageRefusal},
    },
    outbound::{self, Outbound},
};

/// A connection that brings no head, or no piece, for this long is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for reading the body of a refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// The header in which Azure's storage puts its error code, besides or instead of the body.
const AZURE_ERROR_CODE: &str = "x-ms-error-code";

/// Consecutive answers without new bytes after which the attempt is given up.
const MAX_BARREN: u32 = 3;

/// Pause after such an answer, before the next try.
const BARREN_PAUSE: Duration = Duration::from_secs(1);

const TOO_SLOW: &str = "the server sends too slowly";

/// Why there is no copy.
#[derive(Debug)]
pub enum Fault {
    /// The link has expired, as the storage says; or it may have, because the storage gives no
    /// reason.
    Expired(String),
    /// The file is larger than allowed.
    TooLarge,
    /// Our own file store refuses it.
    Store(BlobError),
    Other {
        reason: String,
        retry_after: Option<Duration>,
    },
}

impl Fault {
    pub(super) fn other(reason: impl Into<String>) -> Self {
        Self::Other { reason: reason.into(), retry_after: None }
    }
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        Self::Store(error)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    pub outbound: Outbound,
    pub blobs: Blobs,
    pub clock: Clock,
    /// How slow a server may be, over all its answers to one attempt.
    pub pace: Pace,
}

impl Fetcher {
    /// Copies the file behind `link`. An answer that breaks off is resumed if the server supports
    /// it.
    ///
    /// # Errors
    /// The [`Fault`]; no part of the file is visible then.
    pub async fn fetch(
        &self,
        link: &str,
        key: &FileKey,
        max_bytes: u64,
    ) -> Result<MirroredFile, Fault> {
        let url = Url::parse(link).map_err(|_| Fault::other("its link cannot be read"))?;
        let mut download = Download {
            fetcher: self,
            url,
            key,
            max_bytes,
            asks_for_ranges: true,
            pace: self.pace,
            copy: Copy::begin(&self.blobs, key).await?,
        };
        let fetched = download.run().await;
        let Download { copy, .. } = download;
        match fetched {
            Ok(()) => copy.finish().await,
            Err(fault) => {
                copy.writer.abort().await;
                Err(fault)
            }
        }
    }
}

/// How an incomplete answer ended.
enum Break {
    /// The connection broke; the bytes received so far are good.
    Interrupted(String),
    /// The bytes received cannot be trusted, or no more will come.
    Failed(Fault),
}

impl From<Fault> for Break {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

struct Download<'a> {
    fetcher: &'a Fetcher,
    url: Url,
    key: &'a FileKey,
    max_bytes: u64,
    /// Cleared when the server rejects a range request.
    asks_for_ranges: bool,
    pace: Pace,
    copy: Copy,
}

impl Download<'_> {
    async fn run(&mut self) -> Result<(), Fault> {
        let mut barren = 0;
        loop {
            let before = self.copy.received;
            let reason = match self.one_answer().await {
                Ok(()) if self.copy.is_whole() => return Ok(()),
                Ok(()) => "the answer ended before the file did".to_owned(),
                Err(Break::Interrupted(reason)) => reason,
                Err(Break::Failed(fault)) => return Err(fault),
            };
            // Without an ETag, the rest may belong to another file.
            if self.copy.received == 0 || self.copy.etag().is_none() {
                return Err(Fault::other(reason));
            }
            barren = if self.copy.received > before { 0 } else { barren + 1 };
            if barren == MAX_BARREN {
                return Err(Fault::other(reason));
            }
            if barren > 0 {
                self.fetcher.clock.sleep(BARREN_PAUSE).await;
            }
        }
    }

    /// Requests the missing bytes and takes the answer.
    async fn one_answer(&mut self) -> Result<(), Break> {
        let mut response = self.send().await?;
        if self.asks_for_ranges && is_no_to_ranges(response.status()) {
            self.asks_for_ranges = false;
            self.restart().await?;
            response = self.send().await?;
        }
        response = self.opened(response).await?;
        let head = Head::read(&response).map_err(Fault::other)?;
        let announced = head.total.or(head.length.map(|length| head.start + length));
        if announced.is_some_and(|bytes| bytes > self.max_bytes) {
            return Err(Fault::TooLarge.into());
        }
        if head.coding == ContentCoding::Gzip {
            // Bytes received before are plain, and a part of a packed body is of no use.
            self.restart().await?;
            return self.take_packed(response, head).await;
        }
        let known = match self.copy.place_of(&head)? {
            Place::Beginning => {
                if self.copy.received > 0 {
                    self.restart().await?;
                }
                self.copy.expect(head);
                0
            }
            Place::BeginningAgain => self.copy.received,
            Place::Rest => 0,
        };
        self.take(response, known).await
    }

    /// Takes the body except its first `known` bytes.
    async fn take(&mut self, mut response: Response, mut known: u64) -> Result<(), Break> {
        while let Some(mut piece) = self.next_piece(&mut response).await? {
            let skipped = known.min(piece.len() as u64);
            known -= skipped;
            let _ = piece.split_to(usize::try_from(skipped).unwrap_or(usize::MAX));
            self.append(piece).await?;
        }
        self.copy.note_end();
        Ok(())
    }

    /// Unpacks a packed body and keeps the result. It is not resumed: its ranges refer to the
    /// packed bytes, which are not kept.
    async fn take_packed(&mut self, mut response: Response, head: Head) -> Result<(), Break> {
        if head.start != 0 || head.total != head.length {
            return Err(Fault::other("a part of packed bytes is of no use").into());
        }
        let mut packed = PackedBytes::new(&head);
        let mut unpacker = Unpacker::new(self.key.name());
        self.copy.expect(packed.expected_file(head));
        let damaged = |_| Fault::other("its packed bytes are damaged");
        while let Some(piece) = self.next_piece(&mut response).await? {
            packed.update(&piece)?;
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let unpacked = unpacker.step(&mut rest).map_err(damaged)?;
                self.append(unpacked.into()).await?;
            }
        }
        packed.finish()?;
        let unpacked = unpacker.finish().map_err(damaged)?;
        self.append(unpacked.into()).await?;
        self.copy.note_end();
        Ok(())
    }

    async fn append(&mut self, piece: Bytes) -> Result<(), Fault> {
        if self.copy.received + piece.len() as u64 > self.max_bytes {
            return Err(Fault::TooLarge);
        }
        if piece.is_empty() { Ok(()) } else { self.copy.append(piece).await }
    }

    /// The next bytes of an answer, within the time limits.
    async fn next_piece(&mut self, response: &mut Response) -> Result<Option<Bytes>, Break> {
        let stopwatch = Stopwatch::start();
        let patience = IDLE_TIMEOUT.min(self.pace.patience());
        let piece = timeout(patience, response.chunk()).await;
        let bytes = piece.as_ref().ok().and_then(|piece| piece.as_ref().ok()?.as_ref());
        self.note(stopwatch, bytes.map_or(0, Bytes::len))?;
        let piece = piece.map_err(|_| Break::Interrupted("the server stopped sending".into()))?;
        piece.map_err(|error| Break::Interrupted(outbound::describe(&error).into()))
    }

    // `&mut self` because the writer is not `Sync`.
    async fn send(&mut self) -> Result<Response, Break> {
        let refused = |refused: outbound::Refused| Fault::other(refused.to_string());
        let request = self.fetcher.outbound.foreign(Method::GET, &self.url).map_err(refused)?;
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if self.asks_for_ranges {
            // Also from the first byte: the answer then states the total length.
            request = request.header(RANGE, format!("bytes={}-", self.copy.received));
            if let Some(etag) = self.copy.etag().filter(|_| self.copy.received > 0) {
                request = request.header(IF_RANGE, etag);
            }
        }
        let stopwatch = Stopwatch::start();
        let answer = timeout(IDLE_TIMEOUT.min(self.pace.patience()), request.send()).await;
        self.note(stopwatch, 0)?;
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Break::Interrupted(outbound::describe(&error).into())),
            Err(_) => Err(Break::Interrupted("the server does not answer".into())),
        }
    }

    /// Adds a wait and its bytes to the pace. A server that is too slow is not asked again in this
    /// attempt.
    fn note(&mut self, stopwatch: Stopwatch, bytes: usize) -> Result<(), Fault> {
        let noted = self.pace.note(stopwatch.elapsed(), bytes as u64);
        noted.map_err(|_| Fault::other(TOO_SLOW))
    }

    /// The answer if it brings the file; else a fault with the storage's refusal, of which at most
    /// `MAX_REFUSAL_BYTES` are read.
    async fn opened(&mut self, response: Response) -> Result<Response, Fault> {
        if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let retry_after = header(RETRY_AFTER.as_str());
        let retry_after =
            retry_after.and_then(|value| clock::retry_after(&value, self.fetcher.clock.now()));
        let (status, code) = (response.status().as_u16(), header(AZURE_ERROR_CODE));
        let body = outbound::read_beginning(response, MAX_REFUSAL_BYTES, REFUSAL_TIME).await;
        let said = StorageRefusal::read(status, code.as_deref(), &body).without_link(&self.url);
        let reason = format!("the storage answered {said}");
        // A link that states its own expiry is renewed only after that time.
        let may_be_past = said.is_bare() && link::expiry(self.url.as_str()).is_none();
        match said.is_expired || may_be_past {
            true => Err(Fault::Expired(reason)),
            false => Err(Fault::Other { reason, retry_after }),
        }
    }

    async fn restart(&mut self) -> Result<(), Fault> {
        let fresh = Copy::begin(&self.fetcher.blobs, self.key).await?;
        std::mem::replace(&mut self.copy, fresh).writer.abort().await;
        Ok(())
    }
}

/// Statuses with which servers reject a range request.
fn is_no_to_ranges(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
    )
}

/// Which part of the file an answer brings.
enum Place {
    /// The file from its first byte: bytes received before are discarded.
    Beginning,
    /// The same file from its first byte: bytes already received are skipped.
    BeginningAgain,
    /// The missing rest of the file.
    Rest,
}

/// The bytes received so far, and what they must turn out to be.
struct Copy {
    writer: BlobWriter,
    hashing: Hashing,
    received: u64,
    /// The head of the first answer.
    head: Option<Head>,
    total: Option<u64>,
}

impl Copy {
    async fn begin(blobs: &Blobs, key: &FileKey) -> Result<Self, Fault> {
        let writer = blobs.create(key).await?;
        let hashing = Hashing::begin(false);
        Ok(Self { writer, hashing, received: 0, head: None, total: None })
    }

    /// Records what the first answer says about the file.
    fn expect(&mut self, head: Head) {
        self.hashing = Hashing::begin(head.md5.is_some());
        self.total = head.total;
        self.head = Some(head);
    }

    /// Where the body after this head belongs in the file.
    fn place_of(&self, head: &Head) -> Result<Place, Fault> {
        let Some(first) = self.head.as_ref().filter(|_| self.received > 0) else {
            return match head.start {
                0 => Ok(Place::Beginning),
                _ => Err(Fault::other("the answer does not begin with the file")),
            };
        };
        let is_same = head.etag.is_some() && head.etag == first.etag;
        let is_as_long = head.total.is_none() || first.total.is_none() || head.total == first.total;
        match head.start {
            0 if is_same && is_as_long => Ok(Place::BeginningAgain),
            0 => Ok(Place::Beginning),
            start if start == self.received && is_same && is_as_long => Ok(Place::Rest),
            _ => Err(Fault::other("the rest is another file's")),
        }
    }

    fn etag(&self) -> Option<&str> {
        self.head.as_ref()?.etag.as_deref()
    }

    async fn append(&mut self, piece: Bytes) -> Result<(), Fault> {
        let received = self.received + piece.len() as u64;
        if self.total.is_some_and(|total| received > total) {
            return Err(Fault::other("it is longer than the server told"));
        }
        self.hashing.update(piece.clone()).await?;
        self.writer.write(piece).await?;
        self.received = received;
        Ok(())
    }

    /// An answer has ended: if the server gave no total, that is the end of the file.
    fn note_end(&mut self) {
        self.total.get_or_insert(self.received);
    }

    fn is_whole(&self) -> bool {
        self.total == Some(self.received)
    }

    async fn finish(self) -> Result<MirroredFile, Fault> {
        let digests = self.hashing.finish().await?;
        let sha256: [u8; 32] = digests.sha256.finalize().into();
        let md5 = digests.md5.map(|md5| <[u8; 16]>::from(md5.finalize()));
        let Some(head) = self.head else { return Err(Fault::other("nothing came")) };
        if head.sha256.is_some_and(|told| told != sha256) || head.md5 != md5 {
            self.writer.abort().await;
            return Err(Fault::other("its bytes are not those of the digest that came with them"));
        }
        self.writer.finish().await?;
        Ok(MirroredFile { bytes: self.received, sha256, content_type: head.content_type })
    }
}
