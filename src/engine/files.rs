//! The upload of a job's inputs to the Engine's storage, and the notification of the Engine.
//!
//! Called by `http`. The addresses come from the Engine's replies and are foreign, so they pass the
//! guard. A file of any size needs the memory of a few of its pieces. Invariant: the token is sent
//! only to the Engine's own origin.

use std::{convert::Infallible, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Body, Method, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::{sync::mpsc, time::timeout};
use url::Url;

use super::{Engine, EngineError};
use crate::{
    clock::Stopwatch,
    domain::{
        link::{self, LinkTerms},
        pace::Pace,
        storage::{MAX_REFUSAL_BYTES, StorageRefusal},
    },
    outbound::{self, Outbound, Refused},
};

/// A storage that accepts nothing for this long is down; a stalled line recovers sooner.
const STALL: Duration = Duration::from_secs(60);

/// From the last byte to the answer: object stores assemble large files before they answer.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// How long to wait for a refusal, which needs no byte of the file.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Azure's storage refuses uploads without this header; a caller may give another type.
const AZURE_BLOB_TYPE: (&str, &str) = ("x-ms-blob-type", "BlockBlob");

/// Azure's storage puts its error code into this header, with a body or without one.
const AZURE_ERROR_CODE: &str = "x-ms-error-code";

/// The content type that HTTP clients send by default; it says nothing about the file.
const FORM: &str = "application/x-www-form-urlencoded";

/// An early success comes from a login page or a broken proxy, which does not have the file.
const TOO_EARLY: &str = "it reports success before it has the whole file";

/// What is known of a file before its bytes arrive.
#[derive(Clone, Debug)]
pub struct FileHead {
    /// At least one byte.
    pub length: u64,
    /// The headers as the caller sent them; the link determines which are passed on.
    pub headers: HeaderMap,
}

/// The reason why a file did not reach the storage. `E` is the error of its source.
#[derive(Debug)]
pub enum UploadError<E> {
    /// Its address is not allowed; nothing was sent.
    Refused(String),
    /// The caller did not give these headers, which the link signs; nothing was sent.
    MissingHeaders(Vec<String>),
    /// The link has expired, according to its query or to the storage, whose answer may be missing.
    Expired(Option<StorageRefusal>),
    /// The storage answered with an error.
    Rejected(StorageRefusal),
    /// The connection to the storage failed.
    Failed(&'static str),
    /// The source of the file failed.
    Source(E),
}

/// The reason why the Engine was not notified.
#[derive(Debug)]
pub enum NotifyError {
    /// The address is not allowed; nothing was sent.
    Refused(String),
    Failed(EngineError),
}

impl Engine {
    /// Streams a file to a pre-signed address, as fast as the storage accepts it.
    ///
    /// # Errors
    /// [`UploadError`]: give the missing headers, submit a new job if the link has expired, ask
    /// [`StorageRefusal::is_passing`] whether a rejected file is worth another try. After a failure
    /// of the connection or the source, upload again.
    pub async fn upload<E: Send>(
        &self,
        address: &str,
        head: FileHead,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), UploadError<E>> {
        let url = Url::parse(address).map_err(|_| unreadable(UploadError::Refused))?;
        let request = upload_request(&self.outbound, &url, &head)?;
        let (sender, mut receiver) = mpsc::channel(1);
        let handed_over = stream::poll_fn(move |context| receiver.poll_recv(context));
        let body = Body::wrap_stream(handed_over.map(Ok::<Bytes, Infallible>));
        let mut answer = pin!(request.body(body).send());
        let answered = tokio::select! {
            biased;
            fed = feed(pieces.boxed(), sender, head.length, self.pace) => {
                fed?;
                let silent = |_| UploadError::Failed("it does not answer");
                timeout(ANSWER_TIME, answer).await.map_err(silent)?
            }
            // Answered before the whole file was sent: the storage has refused it, or is lost.
            answered = &mut answer => {
                if answered.as_ref().is_ok_and(|response| response.status().is_success()) {
                    return Err(UploadError::Failed(TOO_EARLY));
                }
                answered
            }
        };
        let lost = match answered {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => return Err(self.refused(&url, refusal_of(response, &url).await)),
            Err(error) if outbound::is_refused(&error) => {
                return Err(UploadError::Refused(outbound::describe(&error).to_owned()));
            }
            Err(error) => outbound::describe(&error),
        };
        match self.asked_for_refusal(&url, &head).await {
            Some(refusal) => Err(self.refused(&url, refusal)),
            None if self.is_past(&url) => Err(UploadError::Expired(None)),
            None => Err(UploadError::Failed(lost)),
        }
    }

    fn refused<E>(&self, url: &Url, refusal: StorageRefusal) -> UploadError<E> {
        match refusal.is_expired || self.is_past(url) {
            true => UploadError::Expired(Some(refusal)),
            false => UploadError::Rejected(refusal),
        }
    }

    /// Whether the link has expired according to its own query.
    fn is_past(&self, url: &Url) -> bool {
        link::expiry(url.as_str()).is_some_and(|end| end <= self.clock.now())
    }

    /// Asks the storage for its refusal by sending only the head of the request. A storage that
    /// refuses during the upload may close the connection, and then its answer is lost.
    async fn asked_for_refusal(&self, url: &Url, head: &FileHead) -> Option<StorageRefusal> {
        let nothing = Body::wrap_stream(stream::pending::<Result<Bytes, Infallible>>());
        let request = upload_request::<()>(&self.outbound, url, head).ok()?.body(nothing);
        let response = timeout(REFUSAL_TIME, request.send()).await.ok()?.ok()?;
        match response.status().is_success() {
            true => None,
            false => Some(refusal_of(response, url).await),
        }
    }

    /// Notifies the Engine that inputs are uploaded, with an empty body and `Content-Length: 0`:
    /// some servers refuse a `POST` without it. At the Engine's own origin the call is repeated
    /// within the retry budget, if it was certainly not taken.
    ///
    /// # Errors
    /// [`NotifyError`]. The caller may repeat the call unless the address is refused.
    pub async fn notify(&self, address: &str) -> Result<(), NotifyError> {
        let url = Url::parse(address).map_err(|_| unreadable(NotifyError::Refused))?;
        if url.origin() == self.config.base_url.origin() {
            return self
                .within_budget(|| self.notify_engine(&url))
                .await
                .map_err(NotifyError::Failed);
        }
        let request = self.outbound.foreign(Method::POST, &url);
        let request = request.map_err(|refused| NotifyError::Refused(refused.to_string()))?;
        let request = request.header(CONTENT_LENGTH, 0).timeout(self.config.timeout);
        let sent = request.send().await;
        let response = sent.map_err(|error| match outbound::is_refused(&error) {
            true => NotifyError::Refused(outbound::describe(&error).to_owned()),
            false => NotifyError::Failed(self.fault_of(&error)),
        })?;
        self.expect_success(response).await.map(|_| ()).map_err(NotifyError::Failed)
    }

    async fn notify_engine(&self, url: &Url) -> Result<(), EngineError> {
        let response = self
            .authorized(|token| {
                self.request(Method::POST, url.clone(), token).header(CONTENT_LENGTH, 0)
            })
            .await?;
        self.expect_success(response).await.map(|_| ())
    }
}

/// Reads an answer that is not a success.
async fn refusal_of(response: Response, url: &Url) -> StorageRefusal {
    let status = response.status().as_u16();
    let code = response.headers().get(AZURE_ERROR_CODE).and_then(|code| code.to_str().ok());
    let code = code.map(str::to_owned);
    let body = outbound::read_beginning(response, MAX_REFUSAL_BYTES, REFUSAL_TIME).await;
    StorageRefusal::read(status, code.as_deref(), &body).without_link(url)
}

/// Sent without a token, whatever the host: the address is its own credential, and object stores
/// refuse a request with two.
fn upload_request<E>(
    outbound: &Outbound,
    url: &Url,
    head: &FileHead,
) -> Result<RequestBuilder, UploadError<E>> {
    let refused = |refused: Refused| UploadError::Refused(refused.to_string());
    let request = outbound.foreign(Method::PUT, url).map_err(refused)?;
    let headers = storage_headers(&LinkTerms::of(url), &head.headers);
    let headers = headers.map_err(UploadError::MissingHeaders)?;
    Ok(request.headers(headers).header(CONTENT_LENGTH, head.length))
}

/// The caller's headers that are passed on to the storage, and those that it requires.
///
/// # Errors
/// The names of the missing headers that the link signs.
fn storage_headers(terms: &LinkTerms, given: &HeaderMap) -> Result<HeaderMap, Vec<String>> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let is_meant = name == CONTENT_TYPE && !is_form(value);
        if is_meant || terms.passes_on(name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    let (name, value) = AZURE_BLOB_TYPE;
    if terms.is_sas && !headers.contains_key(name) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let is_missing = |name: &&String| !headers.contains_key(name.as_str());
    let missing: Vec<String> = terms.signed_headers.iter().filter(is_missing).cloned().collect();
    if missing.is_empty() { Ok(headers) } else { Err(missing) }
}

fn is_form(value: &HeaderValue) -> bool {
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.is_empty() || kind.eq_ignore_ascii_case(FORM)
}

/// Passes a file's pieces to the request until the file is complete. If the request stops accepting
/// pieces, it has an answer or has lost the storage; the caller finds out which.
async fn feed<E>(
    mut pieces: BoxStream<'_, Result<Bytes, E>>,
    request: mpsc::Sender<Bytes>,
    length: u64,
    mut pace: Pace,
) -> Result<(), UploadError<E>> {
    let mut missing = length;
    while missing > 0 {
        let Some(piece) = pieces.try_next().await.map_err(UploadError::Source)? else { break };
        let bytes = piece.len() as u64;
        missing = missing.saturating_sub(bytes);
        let stopwatch = Stopwatch::start();
        let patience = STALL.min(pace.patience());
        match timeout(patience, request.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => return Err(UploadError::Failed("it stopped taking bytes")),
        }
        let noted = pace.note(stopwatch.elapsed(), bytes);
        noted.map_err(|_| UploadError::Failed("it takes bytes too slowly"))?;
    }
    Ok(())
}

fn unreadable<E>(refused: impl Fn(String) -> E) -> E {
    refused("the address is unreadable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(link: &str, given: &[(&'static str, &'static str)]) -> Result<String, Vec<String>> {
        let url = Url::parse(link).expect("an address");
        let pair = |(name, value): &(&'static str, &'static str)| {
            (name.parse().expect("a name"), HeaderValue::from_static(value))
        };
        let headers = storage_headers(&LinkTerms::of(&url), &given.iter().map(pair).collect())?;
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value:?}"));
        Ok(lines.collect::<Vec<_>>().join(", ").replace('"', ""))
    }

    #[test]
    fn azure_gets_its_header_and_nobody_else_does() {
        for link in [
            "https://relu.blob.core.windows.net/scans/x?sv=1&sig=a",
            "https://files.relu.example/scans/x?se=2026-03-01T12:10:00Z&sig=a",
        ] {
            assert_eq!(headers(link, &[]).expect("whole"), "x-ms-blob-type: BlockBlob", "{link}");
            let own = headers(link, &[("x-ms-blob-type", "PageBlob")]).expect("whole");
            assert_eq!(own, "x-ms-blob-type: PageBlob", "as its caller wants it");
        }
        for link in ["https://relu.blob.core.windows.net/x", "https://s3.example/x?signature=a"] {
            assert_eq!(headers(link, &[]).expect("whole"), "", "{link}");
        }
    }

    #[test]
    fn what_a_link_signs_is_sent_as_it_is_given_and_what_is_missing_is_named() {
        let link = "https://s3.example/x?X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-acl&X-Amz-Signature=a";
        let missing = headers(link, &[("x-amz-acl", "private")]).expect_err("one is missing");
        assert_eq!(missing, ["content-type"]);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let sent = headers(link, &[("x-amz-acl", "private"), form, ("accept", "*/*")]);
        let expected = "x-amz-acl: private, content-type: application/x-www-form-urlencoded";
        assert_eq!(sent.expect("whole"), expected);
        let unsigned = headers("https://s3.example/x", &[form, ("authorization", "Bearer k")]);
        assert_eq!(unsigned.expect("whole"), "", "nobody meant either for the storage");
    }
}
