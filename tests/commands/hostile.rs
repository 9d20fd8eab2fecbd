//! A service that puts what steers a terminal into every text it sends, and a user who types it.
//!
//! The invariant: none of it reaches a terminal, whichever command asks and however it ends.

use std::{
    fs,
    process::{Command, Stdio},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use finishline::api::CAUGHT_UP;
use serde_json::{Value, json};

use crate::{
    process::{Process, command_in},
    support::{Ended, run_program, serve},
};

/// Colours, the screen, a title, the clipboard, a link; the same by C1; delete, backspace, a line
/// of one's own; line separators; direction; what nobody sees.
const STEERING: &str = "\u{1b}[31m\u{1b}[2J\u{1b}]0;t\u{7}\u{1b}]52;c;eA==\u{1b}\\\u{1b}]8;;http://x\u{7}\
    \u{9b}2J\u{9d}0;t\u{9c}\u{90}q\u{85}\u{7f}\u{8}\u{0}\r\nfinishline: all is well\r\t\u{b}\u{c}\
    \u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\u{feff}\u{200b}";

/// What is left where it was written out instead.
const TRACE: &str = "finishline: all is well";

const ID: &str = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
const AT: &str = "2026-11-23T20:15:00.000Z";

/// The first character of a text that does something to a terminal, but for the ends of lines.
fn steering(text: &str) -> Option<char> {
    text.chars().find(|one| {
        one.is_control() && *one != '\n'
            || matches!(*one, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
            || ('\u{2028}'..='\u{202e}').contains(one)
            || ('\u{2066}'..='\u{2069}').contains(one)
    })
}

#[track_caller]
fn assert_harmless(what: &str, ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        assert_eq!(steering(text), None, "{what}: {text:?}");
        let is_forged = text.lines().any(|line| line.trim() == TRACE);
        assert!(!is_forged, "{what} has a line of the service's own: {text:?}");
    }
}

fn job() -> Value {
    json!({
        "id": ID, "reference": STEERING, "status": "succeeded", "success": true, "overdue": true,
        "origin": STEERING, "secured": null, "engineJobId": STEERING, "endUserId": STEERING,
        "cloudPackage": STEERING, "externalJobId": STEERING, "createdAt": AT, "submittedAt": AT,
        "finishedAt": AT, "request": { STEERING: STEERING },
        "inputs": [
            {"name": "cbct", "extension": STEERING, "uploadUrl": STEERING, "notifyUrl": STEERING,
             "state": "awaiting"},
            {"name": STEERING, "extension": STEERING, "uploadUrl": null, "notifyUrl": null,
             "state": STEERING},
        ],
        "outputs": [
            {"name": STEERING, "kind": STEERING, "index": 0, "extension": STEERING,
             "structures": [STEERING, STEERING], "status": STEERING, "url": STEERING, "file": null},
            {"name": "gone", "kind": STEERING, "index": 1, "extension": null, "structures": [],
             "status": STEERING, "url": STEERING, "file": null},
        ],
        "engineResponse": { STEERING: STEERING }, "deliveries": 1, "warnings": [STEERING],
        STEERING: STEERING,
    })
}

fn relay() -> Value {
    json!({
        "id": STEERING, "jobId": STEERING, "target": STEERING, "state": STEERING, "attempts": 1,
        "nextAttemptAt": AT, "lastStatus": 500, "webhookId": STEERING,
        "attemptLog": [
            {"number": 1, "at": AT, "millis": 1, "status": 500, "error": null, "answer": STEERING},
            {"number": 2, "at": AT, "millis": 1, "status": null, "error": STEERING, "answer": ""},
        ],
    })
}

fn event(seq: u64, kind: &str) -> Value {
    json!({ "seq": seq, "jobId": STEERING, "type": kind, "at": AT, "data": { STEERING: STEERING } })
}

fn problem() -> Value {
    json!({
        "type": STEERING, "title": STEERING, "status": 422, "detail": STEERING, "code": STEERING,
        "errors": [{"pointer": STEERING, "detail": STEERING}, {"pointer": "", "detail": STEERING}],
        "jobId": STEERING, "engineStatus": 400, "engineBody": { STEERING: STEERING },
    })
}

/// As it stands in a result: pretty JSON, with white space of every kind.
fn result() -> String {
    let body = json!({ "success": true, STEERING: STEERING });
    serde_json::to_string_pretty(&body).unwrap().replace('\n', "\r\n\t")
}

async fn answer(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let path = path.strip_prefix("/v1/").unwrap_or_default().replace(ID, "ID");
    let json = match &*path {
        "jobs/ID/result" => return result().into_response(),
        "jobs/ID/outputs/gone" => {
            return (StatusCode::UNPROCESSABLE_ENTITY, problem().to_string()).into_response();
        }
        path if path.starts_with("jobs/ID/outputs/") => return "a mesh".into_response(),
        "events" => {
            let events = [event(7, "job.finished"), event(8, STEERING)];
            let data = events.map(|event| format!("data: {event}\n\n")).concat();
            let end = format!("event: {CAUGHT_UP}\ndata: {{\"seq\":8}}\n\n");
            return Body::from(format!("{data}{end}")).into_response();
        }
        "jobs" if request.method() == "GET" => json!({ "jobs": [job()], "nextCursor": null }),
        path if request.method() == "DELETE" => {
            assert!(path.starts_with("jobs"));
            json!({ "erased": 1 })
        }
        "jobs/ID/deliveries" => json!({ "deliveries": [{
            "id": STEERING, "jobId": STEERING, "receivedAt": AT, "source": STEERING,
            "outcome": STEERING, "bytes": 1, "sha256": STEERING, "repeats": 0,
            "headers": [[STEERING, STEERING]],
        }] }),
        "jobs/ID/events" => json!({ "events": [event(7, STEERING)] }),
        "relays" => json!({ "relays": [relay()], "nextCursor": null }),
        "relays/resend" => json!({ "relays": 1, "dryRun": false }),
        path if path.starts_with("relays/") => relay(),
        _ => job(),
    };
    let status = if path == "jobs" { StatusCode::CREATED } else { StatusCode::OK };
    (status, json.to_string()).into_response()
}

/// A folder with what the commands read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let body = json!({ "inputFiles": {"cbct": {"extension": ".dcm"}}, "outputFiles": {"a": {}} });
    fs::write(folder.path().join("job.json"), body.to_string()).unwrap();
    fs::write(folder.path().join("scan.dcm"), "a scan").unwrap();
    folder
}

const COMMANDS: [&[&str]; 21] = [
    &["jobs", "list"],
    &["jobs", "list", "--all"],
    &["jobs", "show", ID],
    &["jobs", "wait", ID],
    &["jobs", "wait", ID, "--download", "waited"],
    &["jobs", "deliveries", ID],
    &["jobs", "events", ID],
    &["jobs", "erase", ID, "--yes"],
    &["jobs", "erase", "--end-user", STEERING_WORD, "--yes"],
    &["jobs", "refresh", ID],
    &["jobs", "resubmit", ID],
    &["jobs", "download", ID, "downloaded"],
    &["jobs", "upload", ID, "--input", "cbct=scan.dcm"],
    &["jobs", "upload", ID, "--input", "other=scan.dcm"],
    &["relays", "list"],
    &["relays", "show", ID],
    &["relays", "resend", ID],
    &["relays", "resend", "--state", "dead"],
    &["events"],
    &["submit", "job.json", "--input", "cbct=scan.dcm"],
    &["submit", "job.json", "--wait", "--download", "submitted"],
];

/// [`STEERING`] without the byte that no argument can hold.
const STEERING_WORD: &str = "\u{1b}[31m\u{9b}2J\r\nfinishline: all is well\n\u{7f}\u{202e}\u{2028}";

#[tokio::test(flavor = "multi_thread")]
async fn no_command_passes_on_what_steers_a_terminal() {
    let api = serve(Router::new().fallback(answer)).await;
    for command in COMMANDS {
        for form in [&[][..], &["--json"]] {
            let folder = folder();
            let args = [command, form].concat();
            let ended = run_program(folder.path(), &args, &[("FINISHLINE_API", &api)]).await;
            let what = format!("{args:?}");
            assert_harmless(&what, &ended);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(!said.trim().is_empty(), "{what} says something");
            if form == ["--json"] && !ended.stdout.is_empty() {
                serde_json::from_str::<Value>(&ended.stdout).expect(&what);
            }
        }
    }
    let folder = folder();
    let environment = [("FINISHLINE_API", api.as_str())];
    let show = run_program(folder.path(), &["jobs", "show", ID, "--json"], &environment).await;
    assert_eq!(serde_json::from_str::<Value>(&show.stdout).unwrap(), job(), "nothing is lost");
    let show = run_program(folder.path(), &["jobs", "show", ID], &environment).await;
    assert!(show.stdout.contains(TRACE), "it is shown, written out: {}", show.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_refusal_passes_on_what_steers_a_terminal() {
    let refuse = async || (StatusCode::UNPROCESSABLE_ENTITY, problem().to_string());
    let api = serve(Router::new().fallback(refuse)).await;
    for command in COMMANDS {
        for form in [&[][..], &["--json"]] {
            let folder = folder();
            let args = [command, form].concat();
            let ended = run_program(folder.path(), &args, &[("FINISHLINE_API", &api)]).await;
            assert_harmless(&format!("{args:?}"), &ended);
            assert!(ended.stderr.contains(TRACE) || ended.code == Some(2), "{args:?}: {ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_steers_no_terminal() {
    let api = serve(Router::new().fallback(answer)).await;
    for form in [&[][..], &["--json"]] {
        let folder = folder();
        let args = ["forward", "--to", "http://127.0.0.1:1/hook", "--since", "0", "--give-up", "1"];
        let process = Process::of(command_in(folder.path(), &api, &[&args, form].concat()));
        let shown = process.shows(1).await.join("\n");
        let said = process.stderr().join("\n");
        assert_harmless("forward", &Ended { code: None, stdout: shown, stderr: said });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_exact_in_a_pipe_and_harmless_on_a_terminal() {
    let api = serve(Router::new().fallback(answer)).await;
    let folder = folder();
    let environment = [("FINISHLINE_API", api.as_str())];
    let piped = run_program(folder.path(), &["jobs", "result", ID], &environment).await;
    assert_eq!((piped.stdout, piped.code), (result(), Some(0)));

    let line = format!("{} jobs result {ID}", env!("CARGO_BIN_EXE_finishline"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    script.env("FINISHLINE_API", &api).env("TERM", "xterm");
    let output = tokio::task::spawn_blocking(move || script.output());
    let output = output.await.unwrap().expect("script, of util-linux");
    // The terminal itself ends lines so.
    let shown = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert_eq!(steering(&shown), None, "{shown:?}");
    let value: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value, serde_json::from_str::<Value>(&result()).unwrap());
}

#[tokio::test]
async fn what_is_typed_or_set_is_not_repeated_as_it_is() {
    let folder = folder();
    let word = STEERING_WORD;
    let named = format!("cbct={word}");
    for args in [
        &[word][..],
        &["--api", word, "jobs", "list"],
        &[&format!("--{word}")],
        &["jobs", word],
        &["jobs", "show", word],
        &["jobs", "list", "--status", word],
        &["jobs", "list", "--created-after", word],
        &["jobs", "list", "--limit", word],
        &["jobs", "list", "--key-file", word],
        &["jobs", "wait", ID, "--timeout", word],
        &["jobs", "upload", ID, "--input", word],
        &["jobs", "upload", ID, "--input", &named],
        &["jobs", "download", ID, "job.json/\u{1b}[2J"],
        &["jobs", "erase", "--end-user", word],
        &["relays", "show", word],
        &["relays", "secret", word],
        &["submit", word],
        &["submit", "job.json", "--idempotency-key", word],
        &["submit", "--mesh", word, "--input", "cbct=scan.dcm"],
        &["forward", "--to", word],
        &["forward", "--to", "http://127.0.0.1:1", "--cursor", "nowhere/\u{1b}[2J"],
        &["--config", word, "check"],
        &["--config", word, "healthcheck"],
        &["--config", word, "serve"],
        &["restore-check", word],
        &["restore-check", word, "--json"],
        &["backup", word],
        &["completions", word],
        &["simulate-engine", "--listen", word],
    ] {
        let environment = [("FINISHLINE_API", "http://127.0.0.1:1")];
        let ended = run_program(folder.path(), args, &environment).await;
        assert_harmless(&format!("{args:?}"), &ended);
        assert_ne!(ended.code, Some(0), "{args:?}");
    }
    for (name, args) in [
        ("FINISHLINE_API", &["jobs", "list"][..]),
        ("FINISHLINE_API", &["jobs", "list", "--help"]),
        ("FINISHLINE_KEY", &["jobs", "list"]),
        ("FINISHLINE_FORWARD_SECRET", &["forward", "--to", "http://127.0.0.1:1"]),
        ("FINISHLINE__DATABASE__URL", &["check"]),
        ("FINISHLINE__DATABASE__URL", &["check", "--json"]),
        ("FINISHLINE__LOG__LEVEL", &["serve"]),
        ("FINISHLINE__\u{1b}[2J", &["healthcheck"]),
    ] {
        let ended = run_program(folder.path(), args, &[(name, word)]).await;
        assert_harmless(&format!("{name:?} {args:?}"), &ended);
    }
    let settings = format!("[log]\n\"{}\" = 1\n", "\\u001b[2J\\u0085\\u202e");
    fs::write(folder.path().join("finishline.toml"), settings).unwrap();
    for args in [&["check"][..], &["check", "--json"], &["healthcheck"]] {
        let ended = run_program(folder.path(), args, &[]).await;
        assert_harmless(&format!("{args:?}"), &ended);
        assert_ne!(ended.code, Some(0), "{args:?}");
    }
}
