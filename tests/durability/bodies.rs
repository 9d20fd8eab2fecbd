//! JSON as RFC 8259 has it: what is a result, what is only JSON, what is neither.
//!
//! The invariant: whatever bytes come, they are answered, and the next callback is taken.

use serde_json::json;

use crate::{evidence::*, support::*};

/// Sends each body to a job of its own; fails unless its outcome is the one named, its bytes are
/// kept, and the job stands as it must.
async fn expect_outcomes(service: &Service, bodies: &[(&str, Vec<u8>)], expected: &str) {
    for (name, body) in bodies {
        let (id, url) = running_job(service).await;
        assert_eq!(service.outcome(&url, body.clone()).await, expected, "{name}");
        let delivery = &service.deliveries(&id).await[0];
        assert_eq!(delivery["outcome"], expected, "{name}");
        service.holds(delivery, body).await;
        let job = service.job(&id).await;
        match expected {
            "stored" => {
                assert_eq!(job["success"], true, "{name}");
                let path = format!("/v1/jobs/{id}/result");
                assert_eq!(service.get(&path).await.expect(200).body, body, "{name}");
            }
            _ => assert_eq!(job["status"], "submitted", "{name}"),
        }
    }
}

fn bodies(texts: &[(&'static str, &str)]) -> Vec<(&'static str, Vec<u8>)> {
    texts.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

/// An object with `success` and a value nested so many levels.
fn nested(levels: usize, open: &str, close: &str) -> Vec<u8> {
    let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
    format!(r#"{{"before":{deep},"success":true,"after":{deep}}}"#).into_bytes()
}

#[tokio::test]
async fn whatever_rfc_8259_allows_is_a_result() {
    let service = Service::start().await;
    let mut all = bodies(&[
        ("a number beyond any float", r#"{"success":true,"n":1e999,"m":-1E+999}"#),
        (
            "a number with many digits",
            r#"{"success":true,"n":1234567890123456789012345678901234567890.5}"#,
        ),
        ("minus zero", r#"{"success":true,"n":-0}"#),
        ("a lone surrogate", r#"{"success":true,"note":"\ud800"}"#),
        ("a low surrogate first", r#"{"success":true,"note":"\udc00\ud800x"}"#),
        ("a lone surrogate in a name", r#"{"\ud800":1,"success":true}"#),
        (
            "a lone surrogate in a status",
            r#"{"success":true,"outputFiles":{"meshes":[{"status":"\ud800"}]}}"#,
        ),
        ("an escaped name", r#"{"s\u0075ccess":true}"#),
        ("escaped zeros", r#"{"success":true,"note":"\u0000"}"#),
        ("white space around", "\r\n\t {\"success\" \t: true }\n\n"),
        ("a byte-order mark", "\u{feff}{\"success\":true}"),
        ("an empty name", r#"{"":1,"success":true}"#),
        ("two success that agree", r#"{"success":true,"success":true}"#),
        ("a repeated other name", r#"{"a":1,"a":2,"success":true}"#),
        ("outputs that are no object", r#"{"success":true,"outputFiles":7}"#),
        (
            "outputs of odd shapes",
            r#"{"success":true,"outputFiles":{"meshes":[null,1,[],{}],"x":null}}"#,
        ),
        ("an id that is an object", r#"{"success":true,"jobId":{"a":1}}"#),
        ("non-characters", "{\"success\":true,\"note\":\"\u{ffff}\u{10ffff}\u{2028}\"}"),
    ]);
    all.push(("300 arrays", nested(300, "[", "]")));
    all.push(("300 objects", nested(300, r#"{"a":"#, "}")));
    expect_outcomes(&service, &all, "stored").await;
}

#[tokio::test]
async fn json_that_says_two_things_or_nothing_is_unrecognised() {
    let service = Service::start().await;
    let all = bodies(&[
        ("two success that disagree", r#"{"success":true,"success":false}"#),
        ("two the other way round", r#"{"success":false,"x":1,"success":true}"#),
        ("the second is no boolean", r#"{"success":true,"success":null}"#),
        ("the first is no boolean", r#"{"success":"true","success":true}"#),
        ("they disagree in another spelling", r#"{"success":true,"\u0073uccess":false}"#),
        ("a byte-order mark before a list", "\u{feff}[]"),
        ("a number beyond any float", "1e999"),
        ("a lone surrogate", r#""\ud800""#),
        ("success inside", r#"{"result":{"success":true}}"#),
    ]);
    expect_outcomes(&service, &all, "unrecognised").await;
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    let service = Service::start().await;
    let mut all = bodies(&[
        ("empty", ""),
        ("blank", " \n"),
        ("not a number", "NaN"),
        ("not a number inside", r#"{"success":true,"n":NaN}"#),
        ("infinity", r#"{"success":true,"n":Infinity}"#),
        ("half", r#"{"success":true"#),
        ("two texts", r#"{"success":true}{"success":true}"#),
        ("rubbish after", r#"{"success":true}x"#),
        ("a zero after", "{\"success\":true}\0"),
        ("a comma too many", r#"{"success":true,}"#),
        ("single quotes", "{'success':true}"),
        ("a comment", r#"{"success":true}//"#),
        ("Python's spelling", r#"{"success":True}"#),
        ("a bare line end in a string", "{\"success\":true,\"a\":\"\n\"}"),
        ("a leading zero", r#"{"success":true,"n":01}"#),
        ("half an escape", r#"{"success":true,"a":"\ud8"}"#),
        ("a form", "success=true"),
        ("only a byte-order mark", "\u{feff}"),
        ("two byte-order marks", "\u{feff}\u{feff}{\"success\":true}"),
    ]);
    let utf16 = r#"{"success":true}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    all.push(("UTF-16", utf16));
    for (name, wrong) in [
        ("invalid UTF-8", &b"\xff"[..]),
        ("a surrogate in UTF-8", b"\xed\xa0\x80"),
        ("an overlong zero", b"\xc0\x80"),
        ("half a letter", b"\xe2\x82"),
    ] {
        all.push((name, [br#"{"success":true,"a":""#, wrong, br#""}"#].concat()));
    }
    for (name, body) in all {
        let (id, url) = running_job(&service).await;
        let answer = service.post_to(&url, body.clone()).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        answer.problem(400, "malformed-json");
        let deliveries = service.deliveries(&id).await;
        assert_eq!(deliveries.len(), 1, "{name}");
        assert_eq!(deliveries[0]["outcome"], "malformed", "{name}");
        service.holds(&deliveries[0], &body).await;
        let job = service.job(&id).await;
        assert_eq!(
            (&job["status"], &job["deliveries"]),
            (&json!("submitted"), &json!(1)),
            "{name}"
        );
        assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored", "after {name}");
    }
}

#[tokio::test]
async fn bottomless_nesting_is_answered_and_kept() {
    let service = Service::start().await;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let (id, url) = running_job(&service).await;
        let body = nested(100_000, open, close);
        let outcome = service.outcome(&url, body.clone()).await;
        // The contract leaves open which: what matters is that it is kept and nothing breaks.
        let expected = [("stored", "succeeded"), ("unrecognised", "submitted")];
        let status = expected.into_iter().find(|(known, _)| *known == outcome);
        let (_, status) = status.unwrap_or_else(|| panic!("{outcome}"));
        assert_eq!(service.job(&id).await["status"], status);
        service.holds(&service.deliveries(&id).await[0], &body).await;
        // Where the Engine puts results, nothing is deeper than can be read.
        let (id, url) = running_job(&service).await;
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body =
            format!(r#"{{"jobId":{deep},"success":true,"outputFiles":{{"meshes":{deep}}}}}"#);
        service.outcome(&url, body.clone()).await;
        service.holds(&service.deliveries(&id).await[0], body.as_bytes()).await;
    }
    let (_, url) = running_job(&service).await;
    let broken = "[".repeat(100_000);
    service.post_to(&url, broken).await.problem(400, "malformed-json");
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
}

#[tokio::test]
async fn a_result_with_very_many_outputs_is_stored() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let output = json!({"extension": ".stl", "structures": ["skull"], "status": "Available"});
    let outputs = vec![output; 20_000];
    let body = json!({"success": true, "outputFiles": {"meshes": outputs}}).to_string();
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    service.holds(&service.deliveries(&id).await[0], body.as_bytes()).await;
    let kinds: serde_json::Map<_, _> =
        (0..20_000).map(|kind| (format!("kind{kind}"), json!([{"status": "Available"}]))).collect();
    let body = json!({"success": false, "outputFiles": kinds}).to_string();
    assert_eq!(service.outcome(&url, body.clone()).await, "conflict");
    service.holds(&service.deliveries(&id).await[1], body.as_bytes()).await;
}

#[tokio::test]
async fn the_largest_body_that_is_allowed_is_kept_byte_for_byte() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    const LIMIT: usize = 16 * 1024 * 1024;
    let frame = r#"{"success":true,"padding":""}"#.len();
    let noise: String = (0..LIMIT - frame)
        .map(|place| char::from(b'a' + u8::try_from(place * 7 % 26).expect("a letter")))
        .collect();
    let body = format!(r#"{{"success":true,"padding":"{noise}"}}"#);
    assert_eq!(body.len(), LIMIT);
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    service.holds(&service.deliveries(&id).await[0], body.as_bytes()).await;
    service.post_to(&url, format!("{body} ")).await.problem(413, "payload-too-large");
}
