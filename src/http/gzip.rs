//! Request bodies with a content coding: gzip is unpacked within the body's limit, every other
//! coding is refused by name.
//!
//! Used for bodies that are kept or passed on unpacked. Invariant: unpacking stops at the limit of
//! a plain body.

use std::io::Read as _;

use axum::{
    body::Body,
    http::{HeaderMap, header::CONTENT_ENCODING},
};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{
    error::Problem,
    extract::{BodyError, read_body},
    limits::{BufferedBody, Limits},
};

/// First bytes of every gzip member (RFC 1952); no JSON text begins with them.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A packed body is unpacked in pieces of this size.
const PIECE: usize = 16 * 1024;

const OTHER_CODING: &str =
    "the Content-Encoding is not one that is unpacked here: send the body plain, or with gzip";
const SEVERAL_CODINGS: &str =
    "the body was encoded more than once: send it plain, or with gzip alone";

/// Returns whether the body is announced as gzip and begins like it. Some proxies unpack a body and
/// leave the header, so a body without the magic bytes is read as it is.
pub(super) fn is_packed(headers: &HeaderMap, body: &[u8]) -> bool {
    matches!(codings(headers).as_slice(), [one] if is_gzip(one)) && body.starts_with(&MAGIC)
}

/// The codings that `Content-Encoding` names, in lower case, without `identity`.
pub(super) fn codings(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let names = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase());
    let names: Vec<String> = names.collect();
    let names = names.iter().flat_map(|line| line.split(',')).map(str::trim);
    names.filter(|name| !matches!(*name, "" | "identity")).map(str::to_owned).collect()
}

fn is_gzip(coding: &str) -> bool {
    matches!(coding, "gzip" | "x-gzip")
}

/// Reads a body of at most `limit` bytes, as [`read_body`] does, and unpacks it within that limit.
///
/// # Errors
/// `unsupported-media-type` for any other coding, before a byte is read; `malformed-json` for
/// broken gzip; otherwise the errors of [`read_body`].
pub(super) async fn read_unpacked(
    limits: &Limits,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, Problem> {
    match codings(headers).as_slice() {
        [] => {}
        [one] if is_gzip(one) => {}
        // Do not repeat the names: they are the caller's own text.
        [_] => return Err(Problem::UnsupportedMediaType(OTHER_CODING)),
        [..] => return Err(Problem::UnsupportedMediaType(SEVERAL_CODINGS)),
    }
    let body = read_body(limits, headers, body, limit).await;
    let body = body.map_err(|error| error.into_problem(limit))?;
    if !is_packed(headers, &body) {
        return Ok(body);
    }
    let unpacked = unpack(&body, limits.bodies.body(limit), limit);
    unpacked.map_err(|error| error.into_problem(limit))?.map_err(Problem::MalformedJson)
}

/// The unpacked body, or why it is broken.
pub(super) fn unpack(
    body: &[u8],
    mut unpacked: BufferedBody,
    limit: usize,
) -> Result<Result<Bytes, String>, BodyError> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut piece = [0; PIECE];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(Ok(unpacked.into_bytes())),
            Ok(bytes) if unpacked.len() + bytes > limit => return Err(BodyError::TooLarge),
            Ok(bytes) => unpacked.push(&piece[..bytes])?,
            Err(error) => return Ok(Err(format!("broken gzip: {error}"))),
        }
    }
}
