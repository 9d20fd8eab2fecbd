//! Extracts ids, queries and bodies from requests; invalid ones are refused as problems.
//!
//! Invariant: memory holds no more of a body than its limit, and no more of all bodies than their
//! common budget.

use std::pin::pin;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path},
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
        request::Parts,
    },
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::{
    error::Problem,
    gzip::read_unpacked,
    limits::{Limits, Overloaded},
};
use crate::{
    clock::Stopwatch,
    domain::{
        bounds::{Bound, DEFAULT_LIMIT, MAX_LIMIT, is_name},
        ids::{DeliveryId, JobId},
        job::JobStatus,
        page::{JobFilter, RowList},
        time,
    },
};

/// Orders are small.
const MAX_ORDER_BYTES: usize = 64 * 1024;

const NOT_JSON: &str = "send it as Content-Type: application/json";

/// The job id in the path; anything else is answered as not found.
pub struct JobPath(pub JobId);

/// The delivery id in the path; anything else is answered as not found.
pub struct DeliveryPath(pub DeliveryId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(path_segment(parts, state).await?.parse()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeliveryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(path_segment(parts, state).await?.parse()?))
    }
}

/// The job id in the path, and the name of one of the job's files.
pub struct FilePath(pub JobId, pub String);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Segments::<(String, String)>((id, name)) =
            Segments::from_request_parts(parts, state).await?;
        Ok(Self(id.parse()?, name))
    }
}

/// Segments of the path, unchecked; one that is not UTF-8 is answered as not found.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segments = Path::<T>::from_request_parts(parts, state).await;
        segments.map(|Path(segments)| Self(segments)).map_err(|_| Problem::NotFound)
    }
}

async fn path_segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    Segments::from_request_parts(parts, state).await.map(|Segments(segment)| segment)
}

/// The query of a list of jobs.
#[derive(Debug, Default)]
pub struct ListQuery {
    pub filter: JobFilter,
    pub cursor: Option<String>,
    /// Page size, in jobs.
    pub limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl ListQuery {
    /// Parses the query of `GET /v1/jobs`.
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut list = Self { limit: DEFAULT_LIMIT, ..Self::default() };
        let filter = &mut list.filter;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let refuse = |detail: &str| Problem::invalid(format!("/{name}"), detail);
            let text = || match is_name(&value) {
                true => Ok(Some(value.clone().into_owned())),
                false => Err(refuse(&format!("at most {}", Bound::NameChars.describe()))),
            };
            match &*name {
                "status" => {
                    let status: JobStatus =
                        value.parse().map_err(|detail: String| refuse(&detail))?;
                    if !filter.statuses.contains(&status) {
                        filter.statuses.push(status);
                    }
                }
                "endUserId" => filter.end_user_id = text()?,
                "cloudPackage" => filter.cloud_package = text()?,
                "reference" => filter.reference = text()?,
                "engineJobId" => filter.engine_job_id = text()?,
                "externalJobId" => filter.external_job_id = text()?,
                "overdue" => {
                    let overdue = value.parse().map_err(|_| refuse("expected true or false"))?;
                    filter.overdue = Some(overdue);
                }
                "staleCallback" => {
                    let is_stale = value.parse().map_err(|_| refuse("expected true or false"))?;
                    filter.stale_callback = Some(is_stale);
                }
                "createdAfter" => {
                    filter.created_after = Some(instant(&value).map_err(refuse)?);
                }
                "createdBefore" => {
                    filter.created_before = Some(instant(&value).map_err(refuse)?);
                }
                "cursor" => list.cursor = text()?,
                "limit" => list.limit = limit(&value)?,
                _ => return Err(refuse("unknown parameter")),
            }
        }
        Ok(list)
    }
}

/// The query of a page of a job's deliveries or events.
#[derive(Debug)]
pub struct RowQuery {
    pub cursor: Option<String>,
    /// Page size, in rows.
    pub limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for RowQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut rows = Self { cursor: None, limit: DEFAULT_LIMIT };
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "cursor" => rows.cursor = Some(value.into_owned()),
                "limit" => rows.limit = limit(&value)?,
                _ => return Err(Problem::invalid(format!("/{name}"), "unknown parameter")),
            }
        }
        Ok(rows)
    }
}

impl RowQuery {
    /// The number after which the page begins.
    pub fn after(&self, list: RowList) -> Result<Option<i64>, Problem> {
        Ok(self.cursor.as_deref().map(|cursor| list.from_cursor(cursor)).transpose()?)
    }
}

/// Parses the page size of a query.
pub fn limit(text: &str) -> Result<u32, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let detail = format!("expected a number from 1 to {MAX_LIMIT}");
    limit.ok_or_else(|| Problem::invalid("/limit", detail))
}

/// Parses a time with its offset and rounds it up to whole milliseconds, so that a bound neither
/// loses nor gains a job.
fn instant(text: &str) -> Result<Timestamp, &'static str> {
    let detail = "expected an RFC 3339 time such as 2026-11-23T20:15:00.000Z";
    let exact = time::parse(text).ok_or(detail)?;
    let whole = time::whole_millis(exact);
    let later = if whole < exact { time::from_millis(whole.as_millisecond() + 1) } else { whole };
    Ok(later)
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    /// The sender disconnected; nobody is left to answer.
    Lost,
    /// The sender took longer than the settings allow.
    TooSlow,
    /// Too much is being received already.
    NoRoom,
}

impl BodyError {
    /// The problem to answer with; `limit` is that of the body.
    pub fn into_problem(self, limit: usize) -> Problem {
        match self {
            Self::TooLarge => Problem::PayloadTooLarge(limit),
            Self::Lost => Problem::MalformedJson("the body broke off".into()),
            Self::TooSlow => Problem::RequestTimeout,
            Self::NoRoom => Problem::Overloaded,
        }
    }
}

impl From<Overloaded> for BodyError {
    fn from(_: Overloaded) -> Self {
        Self::NoRoom
    }
}

/// Reads a body of at most `limit` bytes, with or without `Content-Length`. Fails if there is no
/// room for it or the sender is too slow. The room is given back when the bytes are dropped.
pub async fn read_body(
    limits: &Limits,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    // Refuse before reading: a client that waits for `100 Continue` then sends no body.
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(BodyError::TooLarge);
    }
    let mut body = body;
    let mut held = limits.bodies.body(announced.unwrap_or(limit));
    let mut end = pin!(sleep(limits.body_timeout));
    loop {
        let frame = tokio::select! {
            frame = timeout(limits.idle_timeout, body.frame()) => frame,
            () = &mut end => return Err(BodyError::TooSlow),
        };
        let Some(frame) = frame.map_err(|_| BodyError::TooSlow)? else {
            return Ok(held.into_bytes());
        };
        let Ok(piece) = frame.map_err(|_| BodyError::Lost)?.into_data() else { continue };
        if held.len() + piece.len() > limit {
            return Err(BodyError::TooLarge);
        }
        held.push(&piece)?;
    }
}

/// The pieces of a body of any size as they arrive; none is read before it is polled for. A sender
/// may be silent for `limits.idle_timeout`, and must keep up `limits.pace`.
pub fn pieces(limits: &Limits, body: Body) -> impl Stream<Item = Result<Bytes, BodyError>> + use<> {
    let idle = limits.idle_timeout;
    stream::try_unfold((body, limits.pace), move |(mut body, mut pace)| async move {
        loop {
            let stopwatch = Stopwatch::start();
            let frame = timeout(idle.min(pace.patience()), body.frame()).await;
            let Some(frame) = frame.map_err(|_| BodyError::TooSlow)? else { return Ok(None) };
            let piece = frame.map_err(|_| BodyError::Lost)?.into_data().unwrap_or_default();
            let noted = pace.note(stopwatch.elapsed(), piece.len() as u64);
            noted.map_err(|_| BodyError::TooSlow)?;
            if !piece.is_empty() {
                return Ok(Some((piece, (body, pace))));
            }
        }
    })
}

/// Reads an order's body: a small JSON object. An empty body, or `null`, gives the defaults.
pub async fn read_small_json<T: Default + DeserializeOwned>(
    limits: &Limits,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let body = read_unpacked(&limits.of_callers(), headers, body, MAX_ORDER_BYTES).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    expect_json(headers)?;
    let order =
        serde_json::from_slice::<Option<T>>(&body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Problem::invalid("", error),
            _ => Problem::MalformedJson(error.to_string()),
        });
    order.map(Option::unwrap_or_default)
}

/// Refuses a body whose `Content-Type` is not JSON; a missing one is accepted.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let is_json =
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    if is_json { Ok(()) } else { Err(Problem::UnsupportedMediaType(NOT_JSON)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_list_is_asked_for_in_range_and_by_known_names() {
        let list = ListQuery::parse(
            "status=failed&status=partial&limit=200&createdAfter=2026-01-02T03:04:05%2B01:00&overdue=false",
        )
        .expect("valid");
        assert_eq!(list.filter.statuses, [JobStatus::Failed, JobStatus::Partial]);
        assert_eq!(
            list.filter.created_after.map(time::render).as_deref(),
            Some("2026-01-02T02:04:05.000Z")
        );
        assert_eq!((list.limit, list.filter.overdue), (200, Some(false)));
        for query in [
            "limit=0",
            "limit=-1",
            "limit=1000000000000",
            "limit=201",
            "limit=x",
            "limit=",
            "status=done",
            "overdue=1",
            "createdAfter=yesterday",
            "createdBefore=2026-13-01T00:00:00Z",
            "enduserid=7",
        ] {
            assert!(
                matches!(ListQuery::parse(query), Err(Problem::ValidationFailed(_))),
                "{query}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_whether_announced_or_not() {
        let config = config::load(None, std::iter::empty()).expect("the defaults");
        let limits = Limits::new(&config);
        let announced = |length: usize| HeaderMap::from_iter([(CONTENT_LENGTH, length.into())]);
        for headers in [HeaderMap::new(), announced(8)] {
            let body = Body::from("12345678");
            let read = read_body(&limits, &headers, body, 8).await;
            assert_eq!(read.expect("fits"), "12345678");
        }
        for headers in [HeaderMap::new(), announced(9)] {
            let body = Body::from("123456789");
            let read = read_body(&limits, &headers, body, 8).await;
            assert_eq!(read, Err(BodyError::TooLarge));
        }
    }
}
