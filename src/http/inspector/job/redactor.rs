//! Removes secrets from received text before it is shown.
//!
//! Invariants: no page contains the signature of a callback address, with which anyone could forge
//! the callback, nor the query of a link, which is a credential if the link is signed.

use crate::domain::{bounds::beginning, ids::JobId, json, signing_keys::SigningKeys};

/// Replaces a removed part.
const HIDDEN: &str = "…";

const SCHEMES: [&str; 2] = ["http://", "https://"];

/// The secrets to hide on the page of one job.
#[derive(Clone)]
pub(super) struct Redactor {
    signatures: Vec<String>,
}

impl Redactor {
    pub(super) fn of(keys: &SigningKeys, id: JobId) -> Self {
        Self { signatures: keys.signatures(id) }
    }

    /// The text without secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        without_queries(&self.without_signatures(text))
    }

    fn without_signatures(&self, text: &str) -> String {
        let signatures = self.signatures.iter();
        signatures.fold(text.to_owned(), |text, one| text.replace(one, HIDDEN))
    }

    /// The first `most` characters of a text without secrets, and whether that is the whole text.
    /// `is_all` says whether `text` itself is complete.
    pub(super) fn redact_beginning(&self, text: &str, is_all: bool, most: usize) -> (String, bool) {
        let mut shown = self.without_signatures(text);
        if !is_all {
            // The text may end within a signature: remove that part too.
            let left = self.signatures.iter().map(|signature| cut_at_end(&shown, signature)).max();
            shown.truncate(shown.len() - left.unwrap_or_default());
        }
        let shown = without_queries(&shown);
        let kept = beginning(&shown, most);
        let is_all = is_all && kept.len() == shown.len();
        (kept.to_owned(), is_all)
    }

    /// [`Self::redact_beginning`] of a string that is written in quotes; `None` if it is not a
    /// string.
    pub(super) fn redact_string(&self, written: &str, most: usize) -> Option<(String, bool)> {
        // A character has at most four bytes.
        let (text, is_all) = json::beginning(written, most * 4)?;
        Some(self.redact_beginning(&text, is_all, most))
    }

    /// [`Self::redact_beginning`] of bytes that may not be text.
    pub(super) fn redact_bytes(&self, bytes: &[u8], most: usize) -> (String, bool) {
        let part = &bytes[..bytes.len().min(most * 4)];
        let is_all = part.len() == bytes.len();
        self.redact_beginning(&String::from_utf8_lossy(part), is_all, most)
    }
}

/// How many bytes at the end of a text are the start of a signature.
fn cut_at_end(text: &str, signature: &str) -> usize {
    let part = (1..signature.len()).rev().find(|end| text.ends_with(&signature[..*end]));
    part.unwrap_or_default()
}

/// Cuts each link in a text before its query; the text after the link stays.
fn without_queries(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    // Schemes are case-insensitive; positions are the same in both texts.
    let lower = text.to_ascii_lowercase();
    let mut rest = text;
    let next = |rest: &str| {
        let lower = &lower[text.len() - rest.len()..];
        SCHEMES.iter().filter_map(|scheme| lower.find(scheme)).min()
    };
    while let Some(start) = next(rest) {
        let link = &rest[start..];
        let ends = |one: char| one.is_whitespace() || matches!(one, '"' | '<' | '>');
        let end = link.find(ends).unwrap_or(link.len());
        shown.push_str(&rest[..start]);
        match link[..end].find(['?', '#']) {
            Some(query) => {
                shown.push_str(&link[..=query]);
                shown.push_str(HIDDEN);
            }
            None => shown.push_str(&link[..end]),
        }
        rest = &link[end..];
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signature;

    #[test]
    fn a_link_loses_its_query_and_a_callback_its_signature() {
        let id = JobId(uuid::Uuid::from_u128(7));
        let redactor = Redactor::of(&SigningKeys::first([1; 32]), id);
        let callback = format!("http://x/callbacks/{id}/{}", signature::sign(&[1; 32], id));
        assert_eq!(redactor.redact(&callback), format!("http://x/callbacks/{id}/…"));
        assert_eq!(
            redactor.redact("see https://s/a?sig=1&b=2 and http://t/b#c."),
            "see https://s/a?… and http://t/b#…"
        );
        assert_eq!(redactor.redact("a? b https://s/a \"x?y\""), "a? b https://s/a \"x?y\"");
        assert_eq!(redactor.redact("ä?https://"), "ä?https://");
        assert_eq!(
            redactor.redact("Ä HTTPS://s/a?sig=1, hTTp://t?x"),
            "Ä HTTPS://s/a?… hTTp://t?…"
        );
    }

    #[test]
    fn a_signature_that_is_cut_is_shown_in_no_part() {
        let id = JobId(uuid::Uuid::from_u128(7));
        let redactor = Redactor::of(&SigningKeys::first([1; 32]), id);
        let signature = signature::sign(&[1; 32], id);
        for end in 1..signature.len() {
            let text = format!("{}{}", "x".repeat(8), &signature[..end]);
            assert_eq!(
                redactor.redact_beginning(&text, false, 100),
                ("x".repeat(8), false),
                "{end}"
            );
        }
        let long = format!("{}{signature}{}", "x".repeat(390), "y".repeat(400));
        let written = serde_json::to_string(&long).expect("JSON");
        for most in 1..500 {
            let (shown, is_all) = redactor.redact_string(&written, most).expect("a string");
            assert!(
                !shown.contains(&signature[..1]) || signature.starts_with(['x', 'y']),
                "{shown}"
            );
            assert!(!is_all && shown.chars().count() <= most);
        }
    }
}
