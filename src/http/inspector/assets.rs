//! Styles and scripts, compiled in and served under an address that changes with their bytes.
//!
//! Invariant: an address always serves the same bytes, so browsers may cache it forever.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::super::{error::Problem, headers};
use crate::domain::digest::hex;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("foundation.css", STYLE, include_str!("assets/foundation.css")),
    ("parts.css", STYLE, include_str!("assets/parts.css")),
    ("figures.css", STYLE, include_str!("assets/figures.css")),
    ("submit.css", STYLE, include_str!("assets/submit.css")),
    ("page.js", SCRIPT, include_str!("assets/page.js")),
    ("live.js", SCRIPT, include_str!("assets/live.js")),
    ("submit.js", SCRIPT, include_str!("assets/submit.js")),
    ("mesh.js", SCRIPT, include_str!("assets/mesh.js")),
    ("mesh-file.js", SCRIPT, include_str!("assets/mesh-file.js")),
    ("icon.svg", PICTURE, include_str!("assets/icon.svg")),
];

/// Hexadecimal digits of the version in an address.
const VERSION_DIGITS: usize = 12;

/// One version for all files, since scripts import each other by relative addresses.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = Sha256::new();
    for (name, _, content) in FILES {
        hasher.update(name);
        hasher.update(content);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    hex(&digest)[..VERSION_DIGITS].to_owned()
});

/// The address of one of [`FILES`].
pub(super) fn address(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

/// Serves a file.
pub(super) async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let file = FILES.iter().find(|(known, ..)| *known == name && version == *VERSION);
    let Some((_, kind, content)) = file else { return Problem::NotFound.into_response() };
    let head =
        [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, headers::IMMUTABLE)];
    (head, *content).into_response()
}
