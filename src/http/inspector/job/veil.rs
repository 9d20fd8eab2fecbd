//! What must not be read off a page, taken out of text that came from outside.
//!
//! The invariants: no page holds the signature of a callback address, with which anyone could forge
//! the callback, nor the query of a link, which is a credential where links are signed.

use crate::domain::{ids::JobId, signing_keys::SigningKeys};

/// Stands where something was taken out.
const HIDDEN: &str = "…";

/// The schemes of links.
const SCHEMES: [&str; 2] = ["http://", "https://"];

/// What is to be hidden on the page of one job.
#[derive(Clone)]
pub(super) struct Veil {
    signatures: Vec<String>,
}

impl Veil {
    pub(super) fn of(keys: &SigningKeys, id: JobId) -> Self {
        Self { signatures: keys.signatures(id) }
    }

    /// The text as it may be shown.
    pub(super) fn over(&self, text: &str) -> String {
        let signatures = self.signatures.iter();
        let text = signatures.fold(text.to_owned(), |text, one| text.replace(one, HIDDEN));
        without_queries(&text)
    }
}

/// Cuts each link in a text before its query; what follows the link stays.
fn without_queries(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = SCHEMES.iter().filter_map(|scheme| rest.find(scheme)).min() {
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
        let veil = Veil::of(&SigningKeys::first([1; 32]), id);
        let callback = format!("http://x/callbacks/{id}/{}", signature::sign(&[1; 32], id));
        assert_eq!(veil.over(&callback), format!("http://x/callbacks/{id}/…"));
        assert_eq!(
            veil.over("see https://s/a?sig=1&b=2 and http://t/b#c."),
            "see https://s/a?… and http://t/b#…"
        );
        assert_eq!(veil.over("a? b https://s/a \"x?y\""), "a? b https://s/a \"x?y\"");
        assert_eq!(veil.over("ä?https://"), "ä?https://");
    }
}
