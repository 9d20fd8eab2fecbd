//! Parses the answer of a token endpoint, in the spelling of any issuer.
//!
//! Called by `token`. Any bytes are read without a panic and within limits. Invariant: a token that
//! no header can carry is not returned, and no error repeats a token or anything similar.

use std::{collections::BTreeMap, io::Read, time::Duration};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use url::form_urlencoded;

use crate::domain::{
    json::{self, Json},
    quote::quote,
};

/// An answer with a token is a few kilobytes; padded ones are read too.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A longer token exceeds every server's limit for a head.
const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// The life of a token if the issuer gives none that is plausible.
const UNNAMED_LIFE: Duration = Duration::from_secs(300);

/// Longer than any issuer intends, and far below where adding it to a time overflows.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A smaller number is a duration in seconds, a larger one an instant since 1970 (March 1973).
const FIRST_EPOCH: f64 = 1e8;

/// From this number on an instant is in milliseconds.
const FIRST_EPOCH_MILLIS: f64 = 1e11;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Names of the token. Names are compared as normalised by [`plain`], because issuers differ in
/// case and separators: `access_token`, `accessToken`, `AccessToken`.
const TOKEN: [&str; 2] = ["accesstoken", "token"];

/// Names of the life in seconds. `ext_expires_in` is for outages and is ignored.
const SPANS: [&str; 2] = ["expiresin", "expires"];

/// Names of the instant of expiry.
const ENDS: [&str; 4] = ["expireson", "expiresat", "expires", "expiresin"];

/// Names of an error's code, and of its message.
const CODES: [&str; 3] = ["error", "errorcode", "code"];
const WORDS: [&str; 5] = ["errordescription", "errorsummary", "errormessage", "message", "detail"];

/// Objects in which some issuers and gateways wrap the answer.
const WRAPPERS: [&str; 4] = ["error", "data", "result", "response"];

/// A token and its life.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub value: String,
    pub life: Duration,
}

/// The kinds of answers, whatever their status.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Token(Granted),
    /// An error in the form of RFC 6749, or similar.
    Error(IssuerError),
    /// A web page.
    Page,
    /// A token that no header can carry.
    Unsendable,
    /// None of these.
    Nothing,
}

/// `error` and `error_description` of RFC 6749, fit to be shown. Gateways give only a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IssuerError {
    pub code: Option<String>,
    pub description: Option<String>,
}

impl IssuerError {
    /// Removes a secret that the error may echo.
    pub(super) fn without(self, secret: &str) -> Self {
        let hide = |text: String| text.replace(secret, "[redacted]");
        Self { code: self.code.map(hide), description: self.description.map(hide) }
    }

    /// `invalid_client: …`
    pub(super) fn line(self) -> Option<String> {
        match (self.code, self.description) {
            (Some(code), Some(words)) => Some(format!("{code}: {words}")),
            (code, words) => code.or(words),
        }
    }
}

/// Reads a body as JSON, whatever its content type, or else as a form; gzip is unpacked.
pub(super) fn read(body: &[u8], now: Timestamp) -> Answer {
    let mut unpacked = Vec::new();
    let body = match body.starts_with(&GZIP_MAGIC) {
        true => {
            let limit = MAX_ANSWER_BYTES as u64;
            // What was unpacked before an error may still be complete.
            let _ = MultiGzDecoder::new(body).take(limit).read_to_end(&mut unpacked);
            unpacked.as_slice()
        }
        false => body,
    };
    let fields = fields(body);
    let first = |names: &[&str]| names.iter().find_map(|name| fields.get(*name));
    if let Some(token) = first(&TOKEN) {
        let Some(value) = sendable(token) else { return Answer::Unsendable };
        return Answer::Token(Granted { value, life: life(&fields, now) });
    }
    let shown = |names: &[&str]| first(names).and_then(|text| quote(text));
    let error = IssuerError { code: shown(&CODES), description: shown(&WORDS) };
    if error != IssuerError::default() {
        return Answer::Error(error);
    }
    match text_of(body).trim_start().starts_with('<') {
        true => Answer::Page,
        false => Answer::Nothing,
    }
}

/// The texts and numbers of an answer, by name.
fn fields(body: &[u8]) -> BTreeMap<String, String> {
    let text = text_of(body);
    if let Ok(value) = json::parse(text.trim().as_bytes()) {
        let mut fields = scalars(value);
        for (name, inner) in value.members().into_iter().flatten() {
            if WRAPPERS.contains(&plain(&name.text()).as_str()) {
                for (name, value) in scalars(inner) {
                    fields.entry(name).or_insert(value);
                }
            }
        }
        return fields;
    }
    // A truncated JSON text is not read as a form: its name, without the punctuation, would look
    // like a field.
    let is_form = !text.trim_start().starts_with(['{', '[', '"', '<']);
    form_urlencoded::parse(if is_form { text.trim().as_bytes() } else { b"" })
        .map(|(name, value)| (plain(&name), value.into_owned()))
        .collect()
}

/// The texts and numbers of an object; of a repeated name the first counts.
fn scalars(object: Json<'_>) -> BTreeMap<String, String> {
    let scalar = |value: Json<'_>| {
        value.text().or_else(|| {
            let text = value.get();
            text.starts_with(|one: char| one == '-' || one.is_ascii_digit())
                .then(|| text.to_owned())
        })
    };
    let mut fields = BTreeMap::new();
    for (name, value) in object.members().into_iter().flatten() {
        if let Some(value) = scalar(value) {
            fields.entry(plain(&name.text())).or_insert(value);
        }
    }
    fields
}

/// A name in lower case without separators.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|one| one.to_ascii_lowercase()).collect()
}

fn text_of(body: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

/// A token without surrounding white space and without a leading "Bearer".
fn sendable(token: &str) -> Option<String> {
    const SCHEME: &str = "bearer ";
    let token = token.trim().trim_matches('\u{feff}').trim();
    let token = match token.get(..SCHEME.len()) {
        Some(start) if start.eq_ignore_ascii_case(SCHEME) => token[SCHEME.len()..].trim(),
        _ => token,
    };
    let is_sendable = (1..=MAX_TOKEN_BYTES).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic())
        && HeaderValue::from_str(token).is_ok();
    is_sendable.then(|| token.to_owned())
}

/// How long the token is valid: as the issuer says, if that is plausible, else a short time; the
/// Engine refuses an expired token anyway.
fn life(fields: &BTreeMap<String, String>, now: Timestamp) -> Duration {
    let number = |name: &&str| {
        let number: f64 = fields.get(*name)?.trim().parse().ok()?;
        (number > 0.0).then_some(number)
    };
    let span = SPANS.iter().filter_map(number).find(|number| *number < FIRST_EPOCH);
    let seconds = span.or_else(|| {
        let since_1970 = now.as_millisecond() as f64 / 1000.0;
        let ends = ENDS.iter().filter_map(|name| {
            number(name).map(in_seconds).or_else(|| instant(fields.get(*name)?))
        });
        ends.map(|end| end - since_1970).find(|left| *left > 0.0)
    });
    match seconds.or_else(|| number(&"expiresin")) {
        // In this order, NaN falls back to the longest life.
        Some(seconds) => Duration::from_secs_f64(LONGEST_LIFE.as_secs_f64().min(seconds)),
        None => UNNAMED_LIFE,
    }
}

fn in_seconds(epoch: f64) -> f64 {
    if epoch >= FIRST_EPOCH_MILLIS { epoch / 1000.0 } else { epoch }
}

/// An instant in RFC 3339 or RFC 9110 form, in seconds since 1970.
fn instant(text: &str) -> Option<f64> {
    let text = text.trim();
    let at: Timestamp =
        text.parse().ok().or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))?;
    Some(at.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_772_366_400;

    fn read_text(body: &str) -> Answer {
        read(body.as_bytes(), Timestamp::from_second(NOW).expect("in range"))
    }

    fn life_of(rest: &str) -> u64 {
        match read_text(&format!(r#"{{"access_token":"t"{rest}}}"#)) {
            Answer::Token(Granted { life, .. }) => life.as_secs(),
            other => panic!("{rest}: {other:?}"),
        }
    }

    #[test]
    fn a_life_is_read_in_every_spelling_and_one_that_cannot_be_is_a_short_while() {
        let longest = LONGEST_LIFE.as_secs();
        for (rest, seconds) in [
            (r#","expires_in":3600"#, 3600),
            (r#","expires_in":"3600""#, 3600),
            (r#","expires_in":" 3599.9 ""#, 3599),
            (r#","expires_in":3600.0"#, 3600),
            (r#","expires_in":3.6e3"#, 3600),
            (r#","expires_in":1"#, 1),
            ("", 300),
            (r#","expires_in":null"#, 300),
            (r#","expires_in":0"#, 300),
            (r#","expires_in":-1"#, 300),
            (r#","expires_in":"soon""#, 300),
            (r#","expires_in":"NaN""#, 300),
            (r#","expires_in":[3600]"#, 300),
            (r#","expires_in":99999999999999999999"#, longest),
            (r#","expires_in":1e999"#, longest),
            (
                r#","expires_in":"3599","ext_expires_in":"9999","expires_on":"1772369999","not_before":"1""#,
                3599,
            ),
            (r#","expires_on":"1772370000""#, 3600),
            (r#","expires_at":1772370000123"#, 3600),
            (r#","expires_at":"2026-03-01T13:00:00Z""#, 3600),
            (r#","expires":3600"#, 3600),
            (r#","expires":"Sun, 01 Mar 2026 13:00:00 GMT""#, 3600),
            (r#","expires_on":"1772360000""#, 300),
            (r#","expires_in":60,"not-before-policy":0,"x":{"y":[1e999]},"scope":"a b""#, 60),
        ] {
            assert_eq!(life_of(rest), seconds, "{rest}");
        }
    }

    #[test]
    fn a_token_is_read_in_every_wrapping() {
        let granted = |value: &str| {
            let life = Duration::from_secs(60);
            Answer::Token(Granted { value: value.into(), life })
        };
        for body in [
            r#"{"access_token":"t-1","expires_in":60}"#,
            "\u{feff}{\"access_token\":\" t-1\\n\",\"expires_in\":60,\"token_type\":\"BEARER \"}",
            r#"{"token_type":"bearer","access_token":"Bearer t-1","expires_in":60}"#,
            "access_token=t-1&expires_in=60&scope=",
            r#"{"AccessToken":"t-1","ExpiresIn":"60"}"#,
            r#"{"token":"t-1","expires-in":60}"#,
            r#"{"status":"ok","data":{"access_token":"t-1","expires_in":60}}"#,
            "\r\naccess_token=t-1&token_type=bearer&expires_in=60\r\n",
        ] {
            assert_eq!(read_text(body), granted("t-1"), "{body}");
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, br#"{"access_token":"t-1","expires_in":60}"#)
            .expect("memory");
        let packed = packed.finish().expect("memory");
        assert_eq!(read(&packed, Timestamp::UNIX_EPOCH), granted("t-1"));
    }

    #[test]
    fn what_holds_no_token_is_told_apart() {
        for token in ["", " ", r"a\nb", r"a\u0000b", "ä", "a b", &"x".repeat(40_000)] {
            let body = format!(r#"{{"access_token":"{token}"}}"#);
            assert_eq!(read_text(&body), Answer::Unsendable, "{token:.20}");
        }
        for body in ["", "{}", "[]", "null", "{\"access_token\":{}}", "ok", "{\"access_token\":"] {
            assert_eq!(read_text(body), Answer::Nothing, "{body}");
        }
        assert_eq!(read_text("\n<!doctype html>access_token=no"), Answer::Page);
        let error = r#"{"error":"invalid_client","error_description":"AADSTS7000215:\r\nwrong"}"#;
        let expected = IssuerError {
            code: Some("invalid_client".into()),
            description: Some("AADSTS7000215: wrong".into()),
        };
        assert_eq!(read_text(error), Answer::Error(expected.clone()));
        for body in [
            "error=invalid_client&error_description=AADSTS7000215%3A+wrong",
            r#"{"errorCode":"invalid_client","errorSummary":"AADSTS7000215: wrong"}"#,
            r#"{"error":{"code":"invalid_client","message":"AADSTS7000215: wrong"}}"#,
        ] {
            assert_eq!(read_text(body), Answer::Error(expected.clone()), "{body}");
        }
        let words = IssuerError { code: None, description: Some("no".into()) };
        for body in [r#"{"message":"no"}"#, r#"{"title":"Forbidden","detail":"no"}"#] {
            assert_eq!(read_text(body), Answer::Error(words.clone()), "{body}");
        }
    }
}
