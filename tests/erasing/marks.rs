//! Marks: words that stand nowhere by chance, and the search for them in every file.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::*;

/// The files under a folder that hold these bytes, names of files included.
pub fn files_with(folder: &Path, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, mark));
            continue;
        }
        let bytes = fs::read(&path).expect("a readable file");
        let is_in = String::from_utf8_lossy(&bytes).contains(mark);
        if is_in || path.to_string_lossy().contains(mark) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[track_caller]
pub fn assert_planted(folder: &Path, marks: &[String]) {
    for mark in marks {
        assert!(!files_with(folder, mark).is_empty(), "{mark} is in no file");
    }
}

#[track_caller]
pub fn assert_gone(folder: &Path, marks: &[String]) {
    for mark in marks {
        assert_eq!(files_with(folder, mark), [""; 0], "{mark} is left");
    }
}

/// What [`plant`] marks.
const KINDS: [&str; 12] = [
    "user",
    "package",
    "external",
    "options",
    "reference",
    "input",
    "result",
    "link",
    "conflict",
    "malformed",
    "header",
    "unrecognised",
];

pub fn marks_of(tail: &str) -> Vec<String> {
    KINDS.map(|kind| format!("mark-{kind}-{tail}")).into()
}

/// A job with a mark of its own in everything that is submitted and received for it.
pub async fn plant(service: &Service, tail: &str) -> Value {
    let body = ready_job_with(json!({
        "inputFiles": {"cbct": {"extension": ".dcm",
            "downloadUrl": format!("https://store.example/mark-input-{tail}")}},
        "endUserId": format!("mark-user-{tail}"),
        "cloudPackage": format!("mark-package-{tail}"),
        "externalJobId": format!("mark-external-{tail}"),
        "options": {"note": format!("mark-options-{tail}")},
        "finishline": {"reference": format!("mark-reference-{tail}")},
    }));
    let job = service.submitted(&body).await;
    let url = service.callback_url(text(&job["id"]));
    let large = format!("mark-result-{tail} ").repeat(3_000);
    let result = json!({"success": true, "big": large, "outputFiles": {"meshes": [{
        "status": "Available", "url": format!("https://store.example/mark-link-{tail}")}]}});
    let bodies = [
        result.to_string(),
        json!({"success": false, "reason": format!("mark-conflict-{tail}")}).to_string(),
        format!("mark-malformed-{tail}"),
        json!({"state": format!("mark-unrecognised-{tail}")}).to_string(),
    ];
    for body in bodies {
        let request = service.request_to(reqwest::Method::POST, &url).body(body);
        let request = request.header("x-mark", format!("mark-header-{tail}"));
        assert!(matches!(Answer::of(request).await.status, 200 | 400));
    }
    job
}
