//! The head of an answer to a download: what the server says about the bytes that follow.
//!
//! Read by `fetch`. Invariant: a head that contradicts itself is refused; nothing is guessed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Response, StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
        HeaderValue, TRANSFER_ENCODING,
    },
};

use crate::domain::content_coding::ContentCoding;

/// The header in which Google's storage names the encoding of the stored object, even if it serves
/// another one.
const GOOGLE_STORED_ENCODING: &str = "x-goog-stored-content-encoding";

/// Limit of a content type: longer ones are of no use to a browser.
const MAX_CONTENT_TYPE_CHARS: usize = 100;

const UNKNOWN_CONTENT_TYPE: &str = "application/octet-stream";

/// Headers of object stores and standards that hold a digest of the whole file as plain Base64.
const MD5_HEADERS: [&str; 2] = ["x-ms-blob-content-md5", "content-md5"];
const SHA256_HEADER: &str = "x-amz-checksum-sha256";

/// Headers that list several algorithms as `name=value`.
const LIST_HEADERS: [&str; 4] = ["repr-digest", "content-digest", "digest", "x-goog-hash"];

/// Headers whose digest covers only the content of this answer, which may be a part of the file.
const OF_CONTENT_ONLY: [&str; 2] = ["content-md5", "content-digest"];

/// What an answer holds.
#[derive(Debug)]
pub(super) struct Head {
    /// Offset of its first byte in the file.
    pub start: u64,
    /// Bytes that follow; `None` if only their end shows it (chunked).
    pub length: Option<u64>,
    /// Length of the whole file, if the server gives it.
    pub total: Option<u64>,
    /// Identifies these exact bytes; weak ETags do not, and are left out.
    pub etag: Option<String>,
    pub content_type: String,
    /// How the body is packed; lengths and digests are those of the packed bytes.
    pub coding: ContentCoding,
    /// Of the whole file.
    pub sha256: Option<[u8; 32]>,
    /// Of the whole file.
    pub md5: Option<[u8; 16]>,
}

impl Head {
    /// Reads the head of a 200 or 206.
    pub fn read(response: &Response) -> Result<Self, String> {
        let headers = response.headers();
        let codings = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
        let coding = ContentCoding::read(codings)?;
        // Google may unpack a stored object on its own; the digests remain those of the stored
        // bytes.
        let is_stored_packed =
            text(headers, GOOGLE_STORED_ENCODING).is_some_and(|stored| stored != "identity");
        let is_unpacked_already = is_stored_packed && coding == ContentCoding::Plain;
        let length = match text(headers, CONTENT_LENGTH.as_str()) {
            Some(length) => Some(length.trim().parse().map_err(|_| "its length is unreadable")?),
            // Whether a body that ends with the connection is complete cannot be known.
            None if text(headers, TRANSFER_ENCODING.as_str()).is_none() => {
                return Err("the server does not say how long it is".into());
            }
            None => None,
        };
        let (start, length, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(headers, CONTENT_RANGE.as_str()).and_then(content_range);
                let (first, end, total) = range.ok_or("its range is unreadable")?;
                if length.is_some_and(|length| length != end - first) {
                    return Err("the server tells two lengths".into());
                }
                (first, Some(end - first), total)
            }
            _ => (0, length, length),
        };
        let is_whole = start == 0 && (total.is_none() || total == length);
        let etag = text(headers, ETAG.as_str()).filter(|etag| etag.starts_with('"'));
        Ok(Self {
            start,
            length,
            total,
            etag: etag.map(str::to_owned),
            content_type: content_type(headers),
            coding,
            sha256: told_sha256(headers, is_whole).filter(|_| !is_unpacked_already),
            md5: told_md5(headers, is_whole).filter(|_| !is_unpacked_already),
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// First byte, end, total of `bytes 0-99/100`; the total may be `*`.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, end) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let is_sound = first < end && total.is_none_or(|total| end <= total);
    is_sound.then_some((first, end, total))
}

fn content_type(headers: &HeaderMap) -> String {
    let told = text(headers, CONTENT_TYPE.as_str()).filter(|told| {
        told.len() <= MAX_CONTENT_TYPE_CHARS && told.chars().all(|one| matches!(one, ' '..='~'))
    });
    told.unwrap_or(UNKNOWN_CONTENT_TYPE).to_owned()
}

fn told_sha256(headers: &HeaderMap, is_whole: bool) -> Option<[u8; 32]> {
    // For a multipart upload (here of 7 parts) it ends in "-7" and is no digest of the file.
    let of_store = text(headers, SHA256_HEADER).and_then(decoded);
    of_store.or_else(|| listed(headers, "sha-256", is_whole))
}

fn told_md5(headers: &HeaderMap, is_whole: bool) -> Option<[u8; 16]> {
    let mut names = MD5_HEADERS.into_iter().filter(|name| is_told_of_whole(name, is_whole));
    let alone = names.find_map(|name| decoded(text(headers, name)?));
    alone.or_else(|| listed(headers, "md5", is_whole))
}

fn is_told_of_whole(name: &str, is_whole: bool) -> bool {
    is_whole || !OF_CONTENT_ONLY.contains(&name)
}

/// A digest in one of the lists: `sha-256=:Base64:`, `SHA-256=Base64`, `md5=Base64`.
fn listed<const BYTES: usize>(
    headers: &HeaderMap,
    algorithm: &str,
    is_whole: bool,
) -> Option<[u8; BYTES]> {
    let names = LIST_HEADERS.into_iter().filter(|name| is_told_of_whole(name, is_whole));
    let values = names.flat_map(|name| headers.get_all(name)).filter_map(|one| one.to_str().ok());
    let mut items = values.flat_map(|list| list.split(',')).filter_map(|one| one.split_once('='));
    items.find_map(|(name, value)| {
        let is_it = name.trim().eq_ignore_ascii_case(algorithm);
        is_it.then(|| decoded(value.trim().trim_matches(':'))).flatten()
    })
}

fn decoded<const BYTES: usize>(base64: &str) -> Option<[u8; BYTES]> {
    STANDARD.decode(base64.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (reqwest::header::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_digest_is_found_wherever_servers_put_it() {
        let sha256 = STANDARD.encode([7; 32]);
        let md5 = STANDARD.encode([5; 16]);
        for (name, value) in [
            ("x-amz-checksum-sha256", sha256.clone()),
            ("digest", format!("md5=x,SHA-256={sha256}")),
            ("repr-digest", format!("sha-512=:eA==:, sha-256=:{sha256}:")),
            ("content-digest", format!("sha-256=:{sha256}:")),
        ] {
            assert_eq!(told_sha256(&headers(&[(name, &value)]), true), Some([7; 32]), "{name}");
        }
        for (name, value) in [
            ("content-md5", md5.clone()),
            ("x-ms-blob-content-md5", md5.clone()),
            ("x-goog-hash", format!("crc32c=AAAAAA==,md5={md5}")),
        ] {
            assert_eq!(told_md5(&headers(&[(name, &value)]), true), Some([5; 16]), "{name}");
        }
        let of_parts = format!("{sha256}-7");
        assert_eq!(told_sha256(&headers(&[("x-amz-checksum-sha256", &of_parts)]), true), None);
        assert_eq!(told_md5(&headers(&[("content-md5", &md5)]), false), None);
    }

    #[test]
    fn a_range_is_read_or_refused() {
        assert_eq!(content_range("bytes 0-99/100"), Some((0, 100, Some(100))));
        assert_eq!(content_range("bytes 50-99/*"), Some((50, 100, None)));
        for wrong in ["bytes 5-4/10", "bytes 0-10/10", "bytes */10", "items 0-9/10", "0-9/10", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
