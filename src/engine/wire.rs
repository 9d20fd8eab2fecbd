//! The Engine's JSON: what a reply to a submission holds, in every dialect that is plausible.
//!
//! Called by `engine` alone. The invariant: a reply that is not understood is kept, and costs no
//! more than what it would have told.

use serde_json::value::{RawValue, to_raw_value};

use super::Accepted;
use crate::domain::{json, result::engine_job_id};

/// Longest reply that is kept when it is not JSON: an error page, not a document.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Reads the reply to a submission that was answered 2xx.
pub(super) fn accepted(engine_status: u16, body: &[u8], id_pointers: &[String]) -> Accepted {
    let value = json::parse(body).ok();
    Accepted {
        engine_status,
        response: response(body),
        engine_job_id: value.and_then(|value| engine_job_id(value, id_pointers)),
        uploads: value.map(uploads).unwrap_or_default(),
    }
}

/// A body as JSON: itself, or a string of its text; `None` if it is empty.
pub(super) fn response(body: &[u8]) -> Option<Box<RawValue>> {
    if body.is_empty() {
        return None;
    }
    if let Ok(value) = json::parse(body) {
        return Some(value.to_owned());
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT_BYTES)]);
    Some(to_raw_value(&text).expect("a string is JSON"))
}

/// The addresses for each input; a `notifyUrl` at the top serves all that have none of their own.
fn uploads(value: &RawValue) -> Vec<(String, Option<String>, Option<String>)> {
    let members = json::members(value).unwrap_or_default();
    let common = json::member(&members, "notifyUrl").and_then(json::text);
    let inputs = json::member(&members, "inputFiles").and_then(json::members);
    let upload = |(name, entry): (String, &RawValue)| {
        let entry = json::members(entry)?;
        let upload_url = json::member(&entry, "uploadUrl").and_then(json::text)?;
        let notify_url = json::member(&entry, "notifyUrl").and_then(json::text);
        Some((name, Some(upload_url), notify_url.or_else(|| common.clone())))
    };
    inputs.unwrap_or_default().into_iter().filter_map(upload).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Accepted {
        accepted(201, body.as_bytes(), &["/jobId".into(), "/id".into(), "/externalJobId".into()])
    }

    #[test]
    fn both_places_of_the_notify_address_are_read() {
        let per_file = read(
            r#"{"jobId":"e-1","inputFiles":{"cbct":{"uploadUrl":"https://u","notifyUrl":"https://n"},
                "ios_upper":{"extension":".stl"}}}"#,
        );
        let expected = vec![("cbct".into(), Some("https://u".into()), Some("https://n".into()))];
        assert_eq!(per_file.uploads, expected);
        let common = read(
            r#"{"id":12,"notifyUrl":"https://n","inputFiles":{"cbct":{"uploadUrl":"https://u"}}}"#,
        );
        assert_eq!(common.uploads, expected);
        assert_eq!(common.engine_job_id.as_deref(), Some("12"));
    }

    #[test]
    fn a_reply_that_is_not_understood_is_kept_as_it_is() {
        let page = read("<html>ok</html>");
        assert_eq!(page.response.expect("kept").get(), r#""<html>ok</html>""#);
        assert!(page.engine_job_id.is_none() && page.uploads.is_empty());
        assert!(read("").response.is_none());
        assert!(read(r#"{"inputFiles":[1],"jobId":{}}"#).engine_job_id.is_none());
    }
}
