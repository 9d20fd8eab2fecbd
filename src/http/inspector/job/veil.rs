//! What must not be read off a page, taken out of text that came from outside.
//!
//! The invariants: no page holds the signature of a callback address, with which anyone could forge
//! the callback, nor the query of a link, which is a credential where links are signed.

use crate::domain::{ids::JobId, signature};

/// Stands where something was taken out.
const HIDDEN: &str = "…";

/// The schemes of links.
const SCHEMES: [&str; 2] = ["http://", "https://"];

/// What is to be hidden on the page of one job.
#[derive(Clone)]
pub(super) struct Veil {
    signature: String,
}

impl Veil {
    pub(super) fn of(signing_key: &[u8; 32], id: JobId) -> Self {
        Self { signature: signature::sign(signing_key, id) }
    }

    /// The text as it may be shown.
    pub(super) fn over(&self, text: &str) -> String {
        without_queries(&text.replace(&self.signature, HIDDEN))
    }
}

/// Cuts each link in a text before its query; what follows the link stays.
fn without_queries(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    // Schemes are links in any case of their letters; the places are the same in both texts.
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

    #[test]
    fn a_link_loses_its_query_and_a_callback_its_signature() {
        let id = JobId(uuid::Uuid::from_u128(7));
        let veil = Veil::of(&[1; 32], id);
        let callback = format!("http://x/callbacks/{id}/{}", signature::sign(&[1; 32], id));
        assert_eq!(veil.over(&callback), format!("http://x/callbacks/{id}/…"));
        assert_eq!(
            veil.over("see https://s/a?sig=1&b=2 and http://t/b#c."),
            "see https://s/a?… and http://t/b#…"
        );
        assert_eq!(veil.over("a? b https://s/a \"x?y\""), "a? b https://s/a \"x?y\"");
        assert_eq!(veil.over("ä?https://"), "ä?https://");
        assert_eq!(veil.over("Ä HTTPS://s/a?sig=1, hTTp://t?x"), "Ä HTTPS://s/a?… hTTp://t?…");
    }
}
