//! Serves one mirrored file, whole or in part.
//!
//! Called by `outputs` and `bundle`. Invariants: bytes from outside are served as data, never as
//! something a browser runs; a copy is verified in full before it is served for the first time, and
//! a damaged copy is never served.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
            CONTENT_TYPE, ETAG,
        },
    },
    response::{AppendHeaders, IntoResponse, Response},
};

use super::{
    Context,
    conditions::{self, Part},
    error::Problem,
    headers,
};
use crate::{
    blobs::{BlobError, Blobs, FileKey, Sound},
    domain::{
        digest, file_name,
        job::{Job, Output},
        media_type,
        mirror::{AfterMirror, FilePlace, MirroredFile, StoredCopy},
    },
};

/// The copies that a job has, in the order of its outputs.
pub(super) fn copies(job: &Job) -> Vec<StoredCopy> {
    let copies = (0..).zip(&job.outputs).filter(|(_, output)| output.file.is_some());
    let copy = |(position, output): (u32, &Output)| StoredCopy {
        place: FilePlace { job_id: job.id, position },
        output: output.clone(),
    };
    copies.map(copy).collect()
}

/// Serves a copy as the request asks; `None` if the copy is damaged.
pub(super) async fn copy(
    context: &Context,
    (job, copy): (&Job, &StoredCopy),
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Response>, Problem> {
    let (Some(blobs), Some(file)) = (&context.blobs, &copy.output.file) else { return Ok(None) };
    let etag = format!("\"{}\"", digest::hex(&file.sha256));
    let state = AppendHeaders([
        (ETAG, HeaderValue::try_from(&etag).expect("hexadecimal in quotes is a header value")),
        (CACHE_CONTROL, headers::PRIVATE),
    ]);
    if conditions::is_known(headers, &etag) {
        return Ok(Some((StatusCode::NOT_MODIFIED, state).into_response()));
    }
    let part = match conditions::part(headers, &etag, file.bytes) {
        Part::Nothing => return Err(Problem::RangeNotSatisfiable(file.bytes)),
        Part::Bytes(range) if *method == Method::GET => Some(range),
        // RFC 9110 defines ranges for GET only.
        Part::Whole | Part::Bytes(_) => None,
    };
    let range = part.clone().unwrap_or(0..file.bytes);
    let head =
        (state, description(job, copy, file), AppendHeaders([length(range.end - range.start)]));
    if *method == Method::HEAD {
        return Ok(Some((head, Body::empty()).into_response()));
    }
    if sound(context, blobs, copy).await?.is_none() {
        return Ok(None);
    }
    let content = Body::from_stream(blobs.read(&FileKey::of(copy), range.clone()).await?);
    let Some(range) = part else { return Ok(Some((head, content).into_response())) };
    let range = format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes);
    let range = HeaderValue::try_from(range).expect("digits are a header value");
    let range = AppendHeaders([(CONTENT_RANGE, range)]);
    Ok(Some((StatusCode::PARTIAL_CONTENT, head, range, content).into_response()))
}

/// Verifies a copy. A damaged one is recorded, to be mirrored again, and gives `None`.
pub(super) async fn sound(
    context: &Context,
    blobs: &Blobs,
    copy: &StoredCopy,
) -> Result<Option<Sound>, BlobError> {
    let sound = context.verified.verify(blobs, copy).await?;
    if sound.is_none() {
        let (id, output) = (copy.place.job_id, &copy.output.name);
        tracing::error!(job.id = %id, output, "a copy is not what was stored; it is made anew");
        let now = context.clock.now();
        let recorded = context.store.record_mirror(copy.place, AfterMirror::Damaged, now).await;
        if let Err(error) = recorded {
            // The next reader of the copy finds the damage again and records it.
            tracing::warn!(job.id = %id, %error, "a damaged copy is not on record yet");
        }
    }
    Ok(sound)
}

fn description(
    job: &Job,
    copy: &StoredCopy,
    file: &MirroredFile,
) -> AppendHeaders<[(HeaderName, HeaderValue); 3]> {
    let kind = media_type::served(&file.content_type);
    AppendHeaders([
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        attachment(&file_name::of_output(job, &copy.output)),
    ])
}

pub(super) fn length(bytes: u64) -> (HeaderName, HeaderValue) {
    (CONTENT_LENGTH, HeaderValue::from(bytes))
}

/// `Content-Disposition` (RFC 6266), for a name without quotes and control characters. A name
/// beyond ASCII is sent in two forms: clients that do not know the second one use the first.
pub(super) fn attachment(name: &str) -> (HeaderName, HeaderValue) {
    let plain: String = name
        .chars()
        .map(|one| if one.is_ascii_graphic() || one == ' ' { one } else { '_' })
        .collect();
    let mut value = format!("attachment; filename=\"{plain}\"");
    if plain != name {
        let escaped: String = name.bytes().map(escape).collect();
        value = format!("{value}; filename*=UTF-8''{escaped}");
    }
    let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"));
    (CONTENT_DISPOSITION, value)
}

fn escape(byte: u8) -> String {
    match byte {
        b'-' | b'.' | b'_' => char::from(byte).into(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).into(),
        _ => format!("%{byte:02X}"),
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        tracing::error!(%error, "the file store refuses");
        Self::FileStoreUnavailable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beyond_ascii_is_given_in_both_forms() {
        assert_eq!(attachment("case-42-skull.stl").1, "attachment; filename=\"case-42-skull.stl\"");
        assert_eq!(
            attachment("Müller 7.stl").1,
            "attachment; filename=\"M_ller 7.stl\"; filename*=UTF-8''M%C3%BCller%207.stl"
        );
    }
}
