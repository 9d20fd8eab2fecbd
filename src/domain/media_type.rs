//! The media types that files from foreign storage are served with.
//!
//! Invariant: none of them is a type that a browser runs or renders as a page.

/// The type of a file whose storage gives none, or one that is not on the list.
pub const UNKNOWN: &str = "application/octet-stream";

/// Meshes, scans, and the formats that they are packed in or described with.
pub const SERVED: [&str; 20] = [
    "application/dicom",
    "application/gzip",
    "application/json",
    UNKNOWN,
    "application/sla",
    "application/vnd.ms-pki.stl",
    "application/x-gzip",
    "application/x-zip-compressed",
    "application/zip",
    "image/jpeg",
    "image/png",
    "model/3mf",
    "model/gltf+json",
    "model/gltf-binary",
    "model/mtl",
    "model/obj",
    "model/ply",
    "model/stl",
    "text/csv",
    "text/plain",
];

/// The type to serve a file with when its storage declares the type `told`, ignoring parameters.
pub fn served(told: &str) -> &'static str {
    let essence = told.split(';').next().unwrap_or_default().trim();
    let known = SERVED.into_iter().find(|known| known.eq_ignore_ascii_case(essence));
    known.unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_type_is_served_without_its_parameters() {
        for (told, expected) in [
            ("model/stl", "model/stl"),
            (" Model/STL ; charset=utf-8", "model/stl"),
            ("text/plain;charset=utf-7", "text/plain"),
            ("application/json", "application/json"),
        ] {
            assert_eq!(served(told), expected, "{told}");
        }
    }

    #[test]
    fn whatever_a_browser_might_run_is_bytes() {
        for told in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "text/xml",
            "application/xml",
            "application/xhtml+xml",
            "text/javascript",
            "application/javascript",
            "application/x-shockwave-flash",
            "application/pdf",
            "multipart/x-mixed-replace",
            "text/css",
            "text/html, model/stl",
            "model/stl, text/html",
            "model/stl\u{0}",
            "",
            ";",
        ] {
            assert_eq!(served(told), UNKNOWN, "{told}");
        }
    }
}
