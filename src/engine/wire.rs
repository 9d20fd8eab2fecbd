//! Parses the Engine's reply to a submission, in every plausible dialect.
//!
//! Called only by `engine`. A reply that is not understood is kept; only its links and id are lost.

use serde_json::value::{RawValue, to_raw_value};

use super::{Accepted, InputLinks};
use crate::domain::{
    bounds::{Bound, MAX_INPUTS, link, member_name},
    json::{self, Json, Name},
    result::{LeftOut, engine_job_id},
};

/// The longest reply that is kept if it is not JSON: an error page, not a document.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Reads the reply of a submission that was answered with 2xx.
pub(super) fn accepted(engine_status: u16, body: &[u8], id_pointers: &[String]) -> Accepted {
    let value = json::parse(body).ok();
    let (uploads, left_out) = value.map(uploads).unwrap_or_default();
    Accepted {
        engine_status,
        response: response(body),
        engine_job_id: value.and_then(|value| engine_job_id(value, id_pointers)),
        uploads,
        left_out,
        is_too_large: false,
    }
}

/// A body as JSON: unchanged, or its text as a string; `None` if it is empty.
pub(super) fn response(body: &[u8]) -> Option<Box<RawValue>> {
    if body.is_empty() {
        return None;
    }
    if let Ok(value) = json::parse(body) {
        return Some(value.to_raw());
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT_BYTES)]);
    Some(to_raw_value(&text).expect("a string is JSON"))
}

/// The addresses of each input; a top-level `notifyUrl` applies to inputs without their own.
fn uploads(value: Json<'_>) -> (Vec<InputLinks>, LeftOut) {
    let (mut uploads, mut left_out) = (Vec::new(), LeftOut::default());
    let Some([common, inputs]) = value.find(["notifyUrl", "inputFiles"]) else {
        return (uploads, left_out);
    };
    let common = common.map_or(Ok(None), link).unwrap_or_else(|bound| {
        left_out.add(bound, 1);
        None
    });
    for (name, entry) in inputs.and_then(Json::members).into_iter().flatten() {
        match input_links(name, entry) {
            Ok(None) => {}
            Ok(Some(_)) if uploads.len() == MAX_INPUTS => left_out.add(Bound::Inputs, 1),
            Ok(Some((name, upload_url, notify_url))) => {
                uploads.push((name, upload_url, notify_url.or_else(|| common.clone())));
            }
            Err(bound) => left_out.add(bound, 1),
        }
    }
    (uploads, left_out)
}

/// The addresses of one input; `None` if it has no upload address.
fn input_links(name: Name<'_>, entry: Json<'_>) -> Result<Option<InputLinks>, Bound> {
    let [upload_url, notify_url] = entry.find(["uploadUrl", "notifyUrl"]).unwrap_or_default();
    let Some(upload_url) = upload_url.map_or(Ok(None), link)? else { return Ok(None) };
    let notify_url = notify_url.map_or(Ok(None), link)?;
    Ok(Some((member_name(name)?, Some(upload_url), notify_url)))
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

    #[test]
    fn an_entry_beyond_a_bound_is_left_unmatched_and_the_reply_is_kept() {
        let long = format!("https://s/{}", "a".repeat(5_000));
        let id = "7".repeat(300);
        for (body, count, left_out) in [
            (format!(r#"{{"inputFiles":{{"cbct":{{"uploadUrl":"{long}"}}}}}}"#), 0, 1),
            (
                format!(
                    r#"{{"inputFiles":{{"cbct":{{"uploadUrl":"https://u","notifyUrl":"{long}"}}}}}}"#
                ),
                0,
                1,
            ),
            (
                format!(
                    r#"{{"notifyUrl":"{long}","inputFiles":{{"cbct":{{"uploadUrl":"https://u"}}}}}}"#
                ),
                1,
                1,
            ),
            (format!(r#"{{"inputFiles":{{"{id}":{{"uploadUrl":"https://u"}}}}}}"#), 0, 1),
            (
                format!(
                    r#"{{"inputFiles":{{{}}}}}"#,
                    (0..150)
                        .map(|number| format!(r#""i{number}":{{"uploadUrl":"https://u"}}"#))
                        .collect::<Vec<_>>()
                        .join(",")
                ),
                MAX_INPUTS,
                50,
            ),
        ] {
            let reply = read(&body);
            assert_eq!((reply.uploads.len(), reply.left_out.entries), (count, left_out), "{body}");
            assert_eq!(reply.response.expect("kept").get(), body);
            assert!(reply.left_out.bound.is_some());
        }
        let other = read(&format!(r#"{{"jobId":"{id}","id":"e-1"}}"#));
        assert_eq!(other.engine_job_id.as_deref(), Some("e-1"));
        assert!(read(&format!(r#"{{"jobId":"{id}"}}"#)).engine_job_id.is_none());
    }
}
