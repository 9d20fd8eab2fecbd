//! Reads the answer of an object store that refuses a link.
//!
//! Used for uploads, copies and downloads. A link counts as expired only if the storage says so,
//! because a new link costs a new job. Invariant: only the code and the message of a refusal are
//! kept, because the bodies of S3 and Azure hold signatures, keys and strings to sign.

use std::{borrow::Cow, fmt, io::Read as _};

use flate2::read::MultiGzDecoder;
use url::Url;

use super::{
    json::{self, Json},
    link,
    quote::quote,
};

/// How much of a refusal is read; those of S3 are a few kilobytes, web pages may be of any size.
pub const MAX_REFUSAL_BYTES: usize = 64 * 1024;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The longest text that can be a code: a word, not a sentence.
const MAX_CODE_BYTES: usize = 64;

/// Codes that mean expiry without further words: S3 and compatible stores, Google, Alibaba.
const EXPIRED_CODES: [&str; 5] = [
    "ExpiredToken",
    "RequestExpired",
    "TokenExpired",
    "ExpiredTokenException",
    "SecurityTokenExpired",
];

/// Codes of temporary faults, whatever their status; S3 answers some of them with 400.
const PASSING_CODES: [&str; 12] = [
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "OperationTimedOut",
    "RequestTimeout",
    "ServerBusy",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XMinioServerNotInitialized",
];

/// A refusal by a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRefusal {
    /// HTTP status.
    pub status: u16,
    /// The storage's own code, such as `SignatureDoesNotMatch`.
    pub code: Option<String>,
    /// The storage's own message, without possible credentials.
    pub message: Option<String>,
    /// Whether it says that the link, or what signed it, has expired.
    pub is_expired: bool,
}

impl StorageRefusal {
    /// Reads an answer; `code_header` is Azure's `x-ms-error-code`, which comes with a body or
    /// instead of one. The body may hold any bytes.
    pub fn read(status: u16, code_header: Option<&str>, body: &[u8]) -> Self {
        let said = Said::read(text_of(&unpacked(body)).trim());
        let code = code_header.and_then(code).or_else(|| said.code.as_deref().and_then(code));
        Self {
            status,
            is_expired: is_expired(status, code.as_deref(), &said),
            code,
            message: said.message.as_deref().and_then(quote),
        }
    }

    /// Removes the parts of the link that the message may repeat.
    pub fn without_link(self, url: &Url) -> Self {
        let message = self.message.map(|message| link::hide(url, &message));
        Self { message, ..self }
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_passing(&self) -> bool {
        let is_passing_code =
            self.code.as_deref().is_some_and(|code| PASSING_CODES.contains(&code));
        !self.is_expired
            && (is_passing_code
                || matches!(self.status, 408 | 425 | 429 | 500 | 502..=504 | 506 | 509..))
    }

    /// Whether it gives no reason at all, as small servers do for an expired link.
    pub fn is_bare(&self) -> bool {
        let is_refusal = matches!(self.status, 400 | 401 | 403 | 404 | 410);
        is_refusal && self.code.is_none() && self.message.is_none()
    }
}

/// `403 SignatureDoesNotMatch: The request signature …`
impl fmt::Display for StorageRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(formatter, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(formatter, ": {}", message.trim_end_matches('.')),
            None => Ok(()),
        }
    }
}

/// Unpacks a body that a server has packed with gzip unasked, within the bound.
fn unpacked(body: &[u8]) -> Cow<'_, [u8]> {
    let body = &body[..body.len().min(MAX_REFUSAL_BYTES)];
    if !body.starts_with(&GZIP_MAGIC) {
        return Cow::Borrowed(body);
    }
    let mut unpacked = Vec::new();
    // What was unpacked before an error is enough.
    let _ = MultiGzDecoder::new(body).take(MAX_REFUSAL_BYTES as u64).read_to_end(&mut unpacked);
    Cow::Owned(unpacked)
}

/// UTF-8, or UTF-16 with a byte-order mark. Anything else is not readable for a person.
fn text_of(body: &[u8]) -> String {
    let units = |of: fn([u8; 2]) -> u16, rest: &[u8]| {
        let units: Vec<u16> = rest.chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match body {
        [0xff, 0xfe, rest @ ..] => units(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => units(u16::from_be_bytes, rest),
        _ => {
            let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            let is_text = !text.iter().any(|byte| matches!(byte, 0..=8 | 14..=31));
            if is_text { String::from_utf8_lossy(text).into_owned() } else { String::new() }
        }
    }
}

/// Accepts a word of letters and digits as a code; anything else is not repeated.
fn code(text: &str) -> Option<String> {
    let text = text.trim();
    let is_code = (1..=MAX_CODE_BYTES).contains(&text.len())
        && text.bytes().all(|one| one.is_ascii_alphanumeric() || b"._-".contains(&one));
    is_code.then(|| text.to_owned())
}

/// The contents of a refusal's body.
#[derive(Debug, Default)]
struct Said {
    code: Option<String>,
    message: Option<String>,
    /// Only searched, never shown: Azure's holds the string to sign.
    detail: Option<String>,
}

impl Said {
    fn read(body: &str) -> Self {
        let is_page = ["<!doctype", "<html"].iter().any(|start| {
            body.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        });
        if is_page {
            return Self { message: element(body, "title"), ..Self::default() };
        }
        if body.starts_with('<') {
            return Self::of_xml(body);
        }
        match json::parse(body.as_bytes()) {
            Ok(value) => Self::of_json(value),
            // Plain text: the first line is the message.
            Err(_) => Self { message: body.lines().next().map(str::to_owned), ..Self::default() },
        }
    }

    fn of_xml(body: &str) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| element(body, name));
        Self {
            code: first(&["Code", "code"]),
            message: first(&["Message", "message"]),
            detail: first(&["AuthenticationErrorDetail", "Details", "Detail"]),
        }
    }

    /// `{"error": {"code", "message"}}` of Google and Azure, `{"errors": [{…}]}`, `{"code",
    /// "message"}`, `{"error": "…"}`.
    fn of_json(value: Json<'_>) -> Self {
        if value.members().is_none() {
            return Self { message: value.text(), ..Self::default() };
        }
        let listed = || value.member("errors").and_then(Json::elements)?.next();
        let error = value.member("error").or_else(|| value.member("Error")).or_else(listed);
        let holder = error.filter(|error| error.members().is_some()).unwrap_or(value);
        let first =
            |names: &[&str]| names.iter().find_map(|name| holder.member(name).and_then(Json::text));
        let words = first(&["message", "Message", "error_description", "detail"]);
        let short = error.and_then(Json::text);
        // `error` beside a message is a code; alone it is the message.
        let (code, message) = match (words, short) {
            (Some(words), short) => (short, Some(words)),
            (None, short) => (None, short),
        };
        Self {
            code: first(&["code", "Code", "status", "errorCode", "__type"]).or(code),
            message,
            detail: first(&["AuthenticationErrorDetail", "Details"]),
        }
    }
}

/// The text of the first element with this local name, entities decoded.
fn element(xml: &str, name: &str) -> Option<String> {
    let mut rest = xml;
    while let Some(begin) = rest.find('<') {
        rest = &rest[begin + 1..];
        let end = rest.find('>')?;
        let tag = rest[..end].split(|one: char| one.is_whitespace()).next().unwrap_or_default();
        let local = tag.rsplit(':').next().unwrap_or_default();
        rest = &rest[end + 1..];
        if local == name || local.eq_ignore_ascii_case(name) && name == "title" {
            return Some(content(rest));
        }
    }
    None
}

/// The text up to the next tag, with CDATA unwrapped.
fn content(xml: &str) -> String {
    let xml = xml.trim_start();
    if let Some(data) = xml.strip_prefix("<![CDATA[") {
        return data.split("]]>").next().unwrap_or_default().to_owned();
    }
    let text = xml.split('<').next().unwrap_or_default();
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        read.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest.find(';').filter(|end| *end <= 8).map(|end| &rest[1..end]);
        match entity.and_then(character) {
            Some(one) => {
                read.push(one);
                rest = &rest[entity.map_or(1, |entity| entity.len() + 2)..];
            }
            None => {
                read.push('&');
                rest = &rest[1..];
            }
        }
    }
    read.push_str(rest);
    read
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

fn is_expired(status: u16, code: Option<&str>, said: &Said) -> bool {
    if code.is_some_and(|code| EXPIRED_CODES.contains(&code)) {
        return true;
    }
    if !matches!(status, 400 | 401 | 403 | 404 | 410) {
        return false;
    }
    let texts = [&said.message, &said.detail].into_iter().flatten();
    texts.map(|text| text.to_ascii_lowercase()).any(|text| says_expired(&text))
}

fn says_expired(text: &str) -> bool {
    // Azure uses these words for both ends of a signature's life; one that has not begun yet has
    // not expired.
    if text.contains("specified time frame") {
        return !begins_later(text);
    }
    ["expired", "signed expiry time"].iter().any(|words| text.contains(words))
}

/// `… time frame: Start [Sun, 01 Mar 2026 12:00:00 GMT] - Expiry [..] - Current [..]`
fn begins_later(text: &str) -> bool {
    let time = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        let (_, rest) = rest.split_once('[')?;
        jiff::fmt::rfc2822::parse(rest.split(']').next()?.trim()).ok()
    };
    match (time("start"), time("current")) {
        (Some(start), Some(current)) => start.timestamp() > current.timestamp(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AZURE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>\
        AuthenticationFailed</Code><Message>Server failed to authenticate the request. Make sure \
        the value of Authorization header is formed correctly including the signature.\nRequestId:\
        5e7c3a7b-1111-2222-9d2e-3f6a1c8b4e55\nTime:2026-03-01T12:20:00.1Z</Message>\
        <AuthenticationErrorDetail>DETAIL</AuthenticationErrorDetail></Error>";

    fn read(status: u16, body: &str) -> StorageRefusal {
        StorageRefusal::read(status, None, body.as_bytes())
    }

    #[test]
    fn every_storage_s_code_and_words_are_read() {
        for (body, code, message) in [
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>We \
                 calculated &quot;another&quot; one.</Message><StringToSign>s3cret</StringToSign></Error>",
                Some("SignatureDoesNotMatch"),
                Some("We calculated \"another\" one."),
            ),
            (
                "<s:Error xmlns:s='x'><s:Code> NoSuchKey </s:Code><s:Message><![CDATA[a < b]]></s:Message></s:Error>",
                Some("NoSuchKey"),
                Some("a < b"),
            ),
            (
                r#"{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}"#,
                Some("PERMISSION_DENIED"),
                Some("denied"),
            ),
            (r#"{"code":"Nope","message":"no"}"#, Some("Nope"), Some("no")),
            (
                r#"{"statusCode":"403","error":"Unauthorized","message":"no"}"#,
                Some("Unauthorized"),
                Some("no"),
            ),
            (r#"{"error":"the link has ended"}"#, None, Some("the link has ended")),
            (r#"{"errors":[{"code":"Nope","message":"no"}]}"#, Some("Nope"), Some("no")),
            (
                "<!DOCTYPE html><html><head><Title>403 Forbidden</Title></head>",
                None,
                Some("403 Forbidden"),
            ),
            ("no such thing\nat all", None, Some("no such thing")),
            ("", None, None),
            ("<", None, None),
            ("{", None, Some("{")),
        ] {
            let said = read(403, body);
            assert_eq!((said.code.as_deref(), said.message.as_deref()), (code, message), "{body}");
            assert!(!said.is_expired, "{body}");
        }
        let headed = StorageRefusal::read(403, Some("AuthorizationFailure"), b"");
        assert_eq!(headed.to_string(), "403 AuthorizationFailure");
    }

    #[test]
    fn packed_and_wide_refusals_are_read_and_noise_is_not_repeated() {
        let xml = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, xml.as_bytes()).expect("memory");
        let packed = packer.finish().expect("memory");
        let wide: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(xml.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        for body in [packed.as_slice(), &packed[..packed.len() - 6], &wide] {
            let said = StorageRefusal::read(403, None, body);
            assert_eq!(said.code.as_deref(), Some("AccessDenied"));
            assert!(said.is_expired);
        }
        for noise in [&[0x1f, 0x8b, 8, 0, 1, 2][..], &[0, 1, 2, 3], b"\x28\xb5\x2f\xfd\x00abc"] {
            assert_eq!(StorageRefusal::read(403, None, noise).to_string(), "403");
        }
    }

    #[test]
    fn only_a_storage_that_says_so_makes_a_link_expired() {
        let azure = |detail: &str| AZURE.replace("DETAIL", detail);
        let frame = |start: &str| {
            azure(&format!(
                "Signature not valid in the specified time frame: Start [Sun, 01 Mar 2026 {start} GMT] \
                 - Expiry [Sun, 01 Mar 2026 13:00:00 GMT] - Current [Sun, 01 Mar 2026 13:20:00 GMT]"
            ))
        };
        let xml = |code: &str, words: &str| {
            format!("<Error><Code>{code}</Code><Message>{words}</Message></Error>")
        };
        for (body, expired) in [
            (xml("AccessDenied", "Request has expired"), true),
            (xml("AccessDenied", "Access Denied"), false),
            (xml("ExpiredToken", "The provided token has expired."), true),
            (
                xml("SignatureDoesNotMatch", "The request signature we calculated does not match"),
                false,
            ),
            (xml("RequestTimeTooSkewed", "The difference is too large."), false),
            (xml("NoSuchBucket", "The specified bucket does not exist"), false),
            (frame("12:00:00"), true),
            (frame("14:00:00"), false),
            (azure("Signature did not match. String to sign used was rw"), false),
            (r#"{"error":"the link has expired"}"#.into(), true),
            ("URL expired".into(), true),
            (String::new(), false),
        ] {
            assert_eq!(read(403, &body).is_expired, expired, "{body}");
        }
        assert!(!read(500, "the disk has expired").is_expired);
        assert!(read(400, &xml("ExpiredToken", "")).is_expired, "as Google says it");
    }

    #[test]
    fn no_signature_and_no_key_is_repeated() {
        let said = read(
            403,
            "<Error><Code>SignatureDoesNotMatch</Code><Message>for AKIAIOSFODNN7EXAMPLE and \
             https://b.example/x?X-Amz-Signature=0123</Message><AWSAccessKeyId>AKIAIOSFODNN7EXAMPLE\
             </AWSAccessKeyId><SignatureProvided>c2lnbmF0dXJl</SignatureProvided></Error>",
        );
        let shown = said.to_string();
        for secret in ["AKIA", "0123", "c2lnbmF0dXJl"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(read(403, "<Error><Code>a b</Code></Error>").code, None);
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for (status, code, passes) in [
            (503, "SlowDown", true),
            (400, "RequestTimeout", true),
            (500, "", true),
            (429, "", true),
            (403, "SignatureDoesNotMatch", false),
            (501, "NotImplemented", false),
            (507, "", false),
        ] {
            let said = read(status, &format!("<Error><Code>{code}</Code></Error>"));
            assert_eq!(said.is_passing(), passes, "{status} {code}");
        }
    }
}
