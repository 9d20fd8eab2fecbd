//! A job's inputs on their way: their bytes to the Engine's storage, and word that they are there.
//!
//! Called by `http`. The invariants: the addresses come from the Engine's replies and are foreign,
//! so they go through the guard; the token goes to the Engine's own origin and nowhere else; a file
//! of any size takes the memory of a few of its pieces.

use std::{convert::Infallible, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Body, Method, RequestBuilder, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use tokio::{sync::mpsc, time::timeout};
use url::Url;

use super::{Engine, EngineError};
use crate::{
    clock::Stopwatch,
    domain::{mirror, pace::Pace},
    outbound::{self, Outbound, Refused},
};

/// A storage that takes nothing for this long is down; a line that stalls for a while is not.
const STALL: Duration = Duration::from_secs(60);

/// From the last byte to the answer: object stores put large files together before they give one.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// For a refusal, which needs no byte of the file.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Azure's storage takes no upload without this.
const AZURE_HOSTS: &str = ".blob.core.windows.net";
const AZURE_BLOB_TYPE: (&str, &str) = ("x-ms-blob-type", "BlockBlob");

/// What is known of a file before its bytes.
#[derive(Clone, Debug)]
pub struct FileHead {
    /// At least one byte.
    pub length: u64,
    pub content_type: Option<HeaderValue>,
}

/// Why a file is not at the storage. `E` is what its source failed with.
#[derive(Debug)]
pub enum UploadError<E> {
    /// Its address is one that is not followed; nothing was sent.
    Refused(String),
    /// The storage does not know, or no longer honours, the link.
    Expired,
    /// The storage answered with an error, or was lost.
    Failed { status: Option<u16>, cause: &'static str },
    /// The file's own bytes stopped coming.
    Source(E),
}

/// Why the Engine was not told.
#[derive(Debug)]
pub enum NotifyError {
    /// The address is one that is not followed; nothing was sent.
    Refused(String),
    Failed(EngineError),
}

impl Engine {
    /// Streams a file to a pre-signed address, as fast as the storage takes it.
    pub async fn upload<E: Send>(
        &self,
        address: &str,
        head: FileHead,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), UploadError<E>> {
        let url = Url::parse(address).map_err(|_| unreadable(UploadError::Refused))?;
        let request = upload_request(&self.outbound, &url, &head);
        let request = request.map_err(|refused| UploadError::Refused(refused.to_string()))?;
        let (sender, mut receiver) = mpsc::channel(1);
        let handed_over = stream::poll_fn(move |context| receiver.poll_recv(context));
        let body = Body::wrap_stream(handed_over.map(Ok::<Bytes, Infallible>));
        let mut answer = pin!(request.body(body).send());
        let answered = tokio::select! {
            biased;
            fed = feed(pieces.boxed(), sender, head.length, self.pace) => {
                fed?;
                let failed = |cause| UploadError::Failed { status: None, cause };
                timeout(ANSWER_TIME, answer).await.map_err(|_| failed("it does not answer"))?
            }
            // Before it had everything: it has refused, or is lost.
            answered = &mut answer => answered,
        };
        let is_past = mirror::expiry(address).is_some_and(|end| end <= self.clock.now());
        let status = match answered {
            Ok(response) => response.status(),
            Err(error) if outbound::is_refused(&error) => {
                return Err(UploadError::Refused(outbound::describe(&error).to_owned()));
            }
            Err(error) => match self.refusal(&url, &head).await {
                Some(status) => status,
                None if is_past => return Err(UploadError::Expired),
                None => {
                    let cause = outbound::describe(&error);
                    return Err(UploadError::Failed { status: None, cause });
                }
            },
        };
        match status {
            _ if status.is_success() => Ok(()),
            _ if is_past || is_link_refused(status) => Err(UploadError::Expired),
            _ => {
                let cause = "it answered with an error";
                Err(UploadError::Failed { status: Some(status.as_u16()), cause })
            }
        }
    }

    /// Why the storage refuses, asked with a head alone. Whoever refuses while it is still sent to
    /// may close on us, and its answer is lost with the connection.
    async fn refusal(&self, url: &Url, head: &FileHead) -> Option<StatusCode> {
        let nothing = Body::wrap_stream(stream::pending::<Result<Bytes, Infallible>>());
        let request = upload_request(&self.outbound, url, head).ok()?.body(nothing);
        let response = timeout(REFUSAL_TIME, request.send()).await.ok()?.ok()?;
        Some(response.status()).filter(|status| !status.is_success())
    }

    /// Tells the Engine that inputs are there, with an empty body of stated length: some servers
    /// refuse a `POST` without one. At its own host the call is repeated within the
    /// retry budget, as long as it was certainly not taken.
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
            false => NotifyError::Failed(EngineError::of_sending(&error)),
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

/// Without a token, whoever the host is: the address is its own credential, and object stores
/// refuse a request with two.
fn upload_request(
    outbound: &Outbound,
    url: &Url,
    head: &FileHead,
) -> Result<RequestBuilder, Refused> {
    let request = outbound.foreign(Method::PUT, url)?.header(CONTENT_LENGTH, head.length);
    let request = match &head.content_type {
        Some(kind) => request.header(CONTENT_TYPE, kind),
        None => request,
    };
    let (name, value) = AZURE_BLOB_TYPE;
    let is_azure = url.host_str().is_some_and(|host| host.ends_with(AZURE_HOSTS));
    Ok(if is_azure { request.header(name, value) } else { request })
}

/// Hands a file's pieces to the request until it is whole. A request that takes no more has its
/// answer, or has lost the storage: either will show.
async fn feed<E>(
    mut pieces: BoxStream<'_, Result<Bytes, E>>,
    request: mpsc::Sender<Bytes>,
    length: u64,
    mut pace: Pace,
) -> Result<(), UploadError<E>> {
    let failed = |cause| UploadError::Failed { status: None, cause };
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
            Err(_) => return Err(failed("it stopped taking bytes")),
        }
        pace.note(stopwatch.elapsed(), bytes).map_err(|_| failed("it takes bytes too slowly"))?;
    }
    Ok(())
}

fn is_link_refused(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE
    )
}

fn unreadable<E>(refused: impl Fn(String) -> E) -> E {
    refused("the address is unreadable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Permissions;

    #[test]
    fn azure_gets_its_header_and_nobody_else_does() {
        let outbound = Outbound::new(Permissions::default(), &[]).expect("a client");
        let blob_type = |address: &str| {
            let head = FileHead { length: 7, content_type: None };
            let url = Url::parse(address).expect("an address");
            let request = upload_request(&outbound, &url, &head).expect("let through");
            let request = request.build().expect("a request");
            assert_eq!(request.headers()[CONTENT_LENGTH], "7");
            assert!(!request.headers().contains_key(CONTENT_TYPE), "none was named");
            request.headers().get("x-ms-blob-type").cloned()
        };
        for address in [
            "https://relu.blob.core.windows.net/scans/x?sig=a",
            "https://RELU.BLOB.core.windows.net/scans/x?sig=a",
        ] {
            assert_eq!(blob_type(address).expect("Azure's header"), "BlockBlob", "{address}");
        }
        for address in [
            "https://relu.s3.eu-west-1.amazonaws.com/x",
            "https://x.example/relu.blob.core.windows.net",
            "https://blob.core.windows.net.example/x",
        ] {
            assert_eq!(blob_type(address), None, "{address}");
        }
    }
}
