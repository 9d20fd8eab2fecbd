//! Redacts the credentials in headers before they are stored.
//!
//! Proxies copy addresses into headers of their own (`X-Original-URL`, `Referer`, `Forwarded`), so
//! every value is searched, not only those of known names. Invariant: no stored value holds a given
//! secret or the signature of any callback address, in plain text, in percent encoding or in
//! base64, or in a few of these encodings nested.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use uuid::{Uuid, fmt::Hyphenated};

/// Replaces what was removed.
const HIDDEN: &str = "[redacted]";

/// How many nested encodings are searched. Real proxies use one or two.
const MAX_LAYERS: usize = 3;

/// Shorter runs are words, not encoded secrets.
const MIN_ENCODED: usize = 20;

/// Characters of a signature: 32 bytes in base64url.
const SIGNATURE_LENGTH: usize = 43;

/// A header whose name contains one of these holds a credential.
const CREDENTIAL_PARTS: [&str; 11] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "apikey",
    "session",
    "jwt",
    "oidc",
];

/// A header with one of these as a word of its name holds a credential.
const CREDENTIAL_WORDS: [&str; 4] = ["auth", "authentication", "key", "pwd"];

/// Names with such a word that hold none.
const NO_CREDENTIALS: [&str; 3] = ["idempotency-key", "x-idempotency-key", "sec-websocket-key"];

/// Values that begin with one of these are credentials, whatever their header is called.
const SCHEMES: [&str; 5] = ["basic ", "bearer ", "digest ", "negotiate ", "aws4-hmac-sha256 "];

/// Removes secrets from headers.
pub struct Redaction {
    /// In lower case.
    secrets: Vec<String>,
}

impl Redaction {
    /// Removes these secrets, in addition to anything that looks like a credential.
    pub fn of(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
        Self { secrets: secrets.map(|secret| secret.to_ascii_lowercase()).collect() }
    }

    /// The redacted value of a header.
    pub fn kept(&self, name: &str, value: &str) -> String {
        if is_credential_name(name) || has_scheme(value) {
            return HIDDEN.to_owned();
        }
        let shown = without_user(without_signatures(self.without_secrets(value.to_owned())));
        // An encoded secret cannot be cut out letter by letter.
        if self.is_encoded_in(&shown, MAX_LAYERS) { HIDDEN.to_owned() } else { shown }
    }

    fn without_secrets(&self, mut text: String) -> String {
        for secret in &self.secrets {
            let mut from = 0;
            while let Some(start) = find_ignoring_case(&text[from..], secret) {
                text.replace_range(from + start..from + start + secret.len(), HIDDEN);
                from += start + HIDDEN.len();
            }
        }
        text
    }

    fn holds(&self, text: &str) -> bool {
        self.secrets.iter().any(|secret| find_ignoring_case(text, secret).is_some())
            || next_signature(text, 0).is_some()
    }

    fn is_encoded_in(&self, text: &str, layers: usize) -> bool {
        let Some(below) = layers.checked_sub(1) else { return false };
        let holds = |decoded: &str| self.holds(decoded) || self.is_encoded_in(decoded, below);
        if text.contains('%') && holds(&percent_decoded(text)) {
            return true;
        }
        // JSON may write a slash as `\/`.
        if text.contains('\\') && holds(&text.replace('\\', "")) {
            return true;
        }
        base64_decoded(text).any(|decoded| holds(&decoded))
    }
}

fn is_credential_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    if NO_CREDENTIALS.contains(&name.as_str()) {
        return false;
    }
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
        || name.split('-').any(|word| CREDENTIAL_WORDS.contains(&word))
}

fn has_scheme(value: &str) -> bool {
    let value = value.trim_start().to_ascii_lowercase();
    SCHEMES.iter().any(|scheme| value.starts_with(scheme))
}

/// The position of a text given in lower case. Lower-casing only ASCII keeps all positions.
fn find_ignoring_case(text: &str, lower: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(lower)
}

/// Removes the signatures of the callback addresses of any job.
fn without_signatures(mut text: String) -> String {
    let mut from = 0;
    while let Some(signature) = next_signature(&text, from) {
        from = signature.start + HIDDEN.len();
        text.replace_range(signature, HIDDEN);
    }
    text
}

/// The position of the signature in the next `{job}/{signature}` in a text.
fn next_signature(text: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let slashes = text.match_indices('/').map(|(slash, _)| slash);
    let mut found = slashes.filter(|slash| *slash >= from).filter_map(|slash| {
        let id = text.get(slash.checked_sub(Hyphenated::LENGTH)?..slash)?;
        Uuid::try_parse(id).ok()?;
        let rest = &text[slash + 1..];
        let length = rest.find(|one| !is_base64url(one)).unwrap_or(rest.len());
        (length >= SIGNATURE_LENGTH).then(|| slash + 1..slash + 1 + length)
    });
    found.next()
}

/// Removes user and password from links.
fn without_user(text: String) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find("://").map(|colon| colon + "://".len()) {
        let (before, link) = rest.split_at(start);
        let ends = |one: char| one.is_whitespace() || matches!(one, '/' | '?' | '#' | '"' | ',');
        let authority = &link[..link.find(ends).unwrap_or(link.len())];
        shown.push_str(before);
        if let Some(at) = authority.rfind('@') {
            shown.push_str(HIDDEN);
            rest = &link[at..];
        } else {
            rest = link;
        }
    }
    shown.push_str(rest);
    shown
}

fn is_base64url(one: char) -> bool {
    one.is_ascii_alphanumeric() || matches!(one, '-' | '_')
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decodes the long runs of letters in a text as base64. A run may begin with letters that belong
/// to something else, so it is decoded from each of its first four positions.
fn base64_decoded(text: &str) -> impl Iterator<Item = String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    [(&STANDARD, ['+', '/']), (&URL_SAFE, ['-', '_'])].into_iter().flat_map(
        move |(alphabet, more)| {
            let engine = GeneralPurpose::new(alphabet, config);
            let runs =
                text.split(move |one: char| !one.is_ascii_alphanumeric() && !more.contains(&one));
            let long = runs.filter(|run| run.len() >= MIN_ENCODED);
            let shifted = long.flat_map(|run| (0..4).map(move |start| &run[start..]));
            shifted.filter_map(move |run| {
                // One letter too many is the end of something that was cut off.
                let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
                let bytes = engine.decode(whole).ok()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    const ID: &str = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    const SIGNATURE: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO_-";
    const SECRET: &str = "inbox+secret/that is long";

    fn redaction() -> Redaction {
        Redaction::of([SECRET.to_owned(), "a-signature-of-ours".to_owned(), String::new()])
    }

    #[test]
    fn a_credential_is_kept_by_name_only() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "X-Forwarded-Authorization",
            "Cookie",
            "set-cookie",
            "X-API-Key",
            "x_api_key",
            "apikey",
            "Ocp-Apim-Subscription-Key",
            "x-auth-token",
            "X-Amz-Security-Token",
            "cf-access-jwt-assertion",
            "x-amzn-oidc-data",
            "x-auth",
            "x-client-secret",
            "x-session-id",
        ] {
            assert_eq!(redaction().kept(name, "value"), HIDDEN, "{name}");
        }
        for name in ["content-type", "idempotency-key", "webhook-signature", "x-author", "keyword"]
        {
            assert_eq!(redaction().kept(name, "value"), "value", "{name}");
        }
        assert_eq!(redaction().kept("x-original", "bearer abc"), HIDDEN);
    }

    #[test]
    fn a_secret_in_plain_text_is_cut_out_and_the_rest_is_kept() {
        let kept = |value: &str| redaction().kept("x-original-url", value);
        assert_eq!(kept("/x/a-Signature-of-ours?b"), "/x/[redacted]?b");
        assert_eq!(kept(&format!("{SECRET} {SECRET}")), "[redacted] [redacted]");
        let address = format!("https://h/callbacks/{ID}/{SIGNATURE}");
        assert_eq!(kept(&format!("{address}?a")), format!("https://h/callbacks/{ID}/[redacted]?a"));
        assert_eq!(
            kept(&format!("<{address}>,<{address}>")),
            format!("<https://h/callbacks/{ID}/[redacted]>,<https://h/callbacks/{ID}/[redacted]>")
        );
        assert_eq!(
            kept("https://user:pw@h/a@b, http://x@y"),
            "https://[redacted]@h/a@b, http://[redacted]@y"
        );
        assert_eq!(kept(&format!("/v1/jobs/{ID}/outputs")), format!("/v1/jobs/{ID}/outputs"));
    }

    #[test]
    fn a_secret_in_another_spelling_hides_the_whole_value() {
        let percent =
            |text: &str| text.bytes().map(|one| format!("%{one:02x}")).collect::<String>();
        let address = format!("/callbacks/{ID}/{SIGNATURE}");
        for text in [SECRET, "/x/a-signature-of-ours", &address] {
            for value in [
                percent(text),
                format!("path={}", percent(text)),
                percent(text).replace('%', "%25"),
                BASE64_STANDARD.encode(text),
                BASE64_URL_SAFE_NO_PAD.encode(text),
                format!("url=\"{}\"", BASE64_STANDARD.encode(format!("https://h{text}?c=d"))),
                percent(&BASE64_STANDARD.encode(text)),
                BASE64_STANDARD.encode(percent(text)),
            ] {
                assert_eq!(redaction().kept("forwarded", &value), HIDDEN, "{value}");
            }
        }
        let escaped = format!(r"{{\/callbacks\/{ID}\/{SIGNATURE}}}");
        assert_eq!(redaction().kept("x-request", &escaped), HIDDEN);
    }

    #[test]
    fn values_without_a_secret_are_kept_as_they_are() {
        for value in [
            "application/json; charset=utf-8",
            "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
            "%zz%2",
            "ünï",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ] {
            assert_eq!(redaction().kept("x-anything", value), value);
        }
    }
}
