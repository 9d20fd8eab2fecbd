//! `/v1/jobs/{id}/inputs/{name}`: uploads of scans to the Engine.
//!
//! Called by the company's software. Invariant: a request that cannot be sent on as announced is
//! refused before a byte of its body is read.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
    },
};

use super::{
    Context,
    access::MaySubmit,
    error::Problem,
    extract::FilePath,
    gzip,
    refusals::{CHECKED, JOB, KEY, Refusals},
    upload::{self, Arriving},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::link,
    engine::FileHead,
};

/// Uploads an input, and tells the Engine.
#[utoipa::path(
    operation_id = "uploadInput",
    put, path = "/v1/jobs/{id}/inputs/{name}", tag = "jobs",
    description = "The body is the file itself, of any size: it goes on to the Engine's storage as \
        it comes. `Content-Length` is needed, as object stores need it. \
        `Content-Type` is passed on to the storage, as are `Content-MD5`, `x-amz-*`, `x-goog-*`, \
        `x-ms-*` and every header that the upload link signs. After `upload-failed`, \
        `storageStatus`, `storageCode` and `storageMessage` are the storage's own. The Engine is told once all \
        inputs are there that share its notify address. An upload that broke off, or failed, can \
        be repeated, and so can one whose input is `uploaded`; one that is `notified` stays as it \
        is. Of two uploads of one input at once, the later goes on. Scope: `submit`.",
    params(FilePath),
    request_body(content = inline(schema::Binary), content_type = "application/octet-stream"),
    responses(
        (status = 200, body = api::JobView, description = "It is there; the Engine was told, or waits for another input"),
        Refusals<{
            KEY | JOB | CHECKED | Code::UnknownInput.bit() | Code::InputProvided.bit()
                | Code::LinkExpired.bit() | Code::UploadFailed.bit() | Code::NotifyFailed.bit()
                | Code::UrlRefused.bit()
        }>,
    ),
    security(("key" = [])),
)]
pub async fn upload(
    MaySubmit(caller): MaySubmit,
    State(context): State<Context>,
    FilePath(id, name): FilePath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<api::JobView>, Problem> {
    let head = file_head(&headers)?;
    let place = context.limits.places.take(&caller.name)?;
    let file = Arriving { head, body, place };
    Ok(Json(caller.view(upload::upload(context, (id, name), file).await?)))
}

/// Tells the Engine of an input that its caller uploaded.
#[utoipa::path(
    operation_id = "notifyInput",
    post, path = "/v1/jobs/{id}/inputs/{name}/notify", tag = "jobs",
    description = "For callers that put the file to `uploadUrl` themselves, and to repeat a call \
        that failed. The Engine is told once all inputs are there that share its notify address; \
        an input that is `notified` stays as it is. Scope: `submit`.",
    params(FilePath),
    responses(
        (status = 200, body = api::JobView, description = "The Engine was told, or waits for another input"),
        Refusals<{
            KEY | JOB | CHECKED | Code::UnknownInput.bit() | Code::InputProvided.bit()
                | Code::NotifyFailed.bit() | Code::UrlRefused.bit()
        }>,
    ),
    security(("key" = [])),
)]
pub async fn notify(
    MaySubmit(caller): MaySubmit,
    State(context): State<Context>,
    FilePath(id, name): FilePath,
) -> Result<Json<api::JobView>, Problem> {
    Ok(Json(caller.view(upload::notify(context, id, name).await?)))
}

/// The file's properties from the headers. Headers that would alter the stored file are refused.
fn file_head(headers: &HeaderMap) -> Result<FileHead, Problem> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        let detail = "object stores take no body of unknown length: send it with its length";
        return Err(Problem::invalid("/Content-Length", detail));
    };
    if length == 0 {
        return Err(Problem::invalid("/Content-Length", "the body is empty: send the file as it"));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::invalid("/Content-Range", "a file is sent as a whole"));
    }
    if !gzip::codings(headers).is_empty() {
        return Err(Problem::invalid("/Content-Encoding", "send the file's own bytes, unpacked"));
    }
    refuse_form(headers)?;
    let mut passed_on = headers.clone();
    for name in headers.keys().filter(|name| !link::can_be_passed_on(name.as_str())) {
        passed_on.remove(name);
    }
    Ok(FileHead { length, headers: passed_on })
}

fn refuse_form(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        let detail = "send the file's own bytes as the body, not a form around them";
        return Err(Problem::invalid("/Content-Type", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn head(pairs: &[(&'static str, &'static str)]) -> Result<FileHead, Problem> {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().expect("a name"), HeaderValue::from_static(value))
        };
        file_head(&pairs.iter().map(header).collect())
    }

    #[test]
    fn what_would_be_another_file_at_the_storage_is_refused() {
        for pairs in [
            vec![],
            vec![("content-length", "0")],
            vec![("content-length", "5"), ("content-range", "bytes 0-4/10")],
            vec![("content-length", "5"), ("content-encoding", "gzip")],
            vec![("content-length", "5"), ("content-type", "multipart/form-data; boundary=x")],
        ] {
            assert!(matches!(head(&pairs), Err(Problem::ValidationFailed(_))), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_between_the_caller_and_us_stays_here() {
        let pairs = [
            ("content-length", "5"),
            ("authorization", "Bearer key"),
            ("cookie", "a=b"),
            ("content-type", "model/stl"),
            ("x-amz-acl", "private"),
        ];
        let head = head(&pairs).expect("fine");
        let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-amz-acl"]);
    }
}
