//! Storages that send files packed: copies and downloads are the unpacked file.

use std::{io::Write as _, sync::LazyLock};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::copies::store_url;
use crate::support::*;

const INBOX: &str = "0123456789abcdef-inbox";

fn file() -> Vec<u8> {
    let mut file = b"solid mandible\n".to_vec();
    (0..50_000_u32).for_each(|one| file.extend((one / 3).to_le_bytes()));
    file
}

/// Made once: packing takes long without optimisation.
static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| gzip(&file()));

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// An output by the way its storage sends it.
struct Way {
    name: &'static str,
    extension: &'static str,
    /// What its file is to be; else why there is none.
    expected: Result<Vec<u8>, &'static str>,
}

fn ways() -> Vec<Way> {
    let way = |name, extension, expected| Way { name, extension, expected };
    let mesh = |name| way(name, ".stl", Ok(file()));
    vec![
        mesh("plain"),
        mesh("identity"),
        mesh("gzip"),
        mesh("GZIP"),
        mesh("x-gzip"),
        mesh("chunked"),
        mesh("digest"),
        mesh("members"),
        mesh("transcoded"),
        way("packed-volume", ".nii.gz", Ok(PACKED.clone())),
        way("volume-by-type", ".nii.gz", Ok(PACKED.clone())),
        way("volume-packed-again", ".nii.gz", Ok(PACKED.clone())),
        way("br", ".stl", Err("packed as br")),
        way("zstd", ".stl", Err("packed as zstd")),
        way("deflate", ".stl", Err("packed as deflate")),
        way("gzip, gzip", ".stl", Err("packed more than once")),
        way("damaged", ".stl", Err("damaged")),
        way("other-digest", ".stl", Err("not those of the digest")),
    ]
}

async fn store(Path(place): Path<usize>, headers: HeaderMap) -> Response {
    assert_eq!(
        headers.get("accept-encoding").map(|value| value.as_bytes()),
        Some(&b"identity"[..])
    );
    let (file, packed) = (file(), PACKED.clone());
    let digest = |bytes: &[u8]| format!("md5={}", BASE64_STANDARD.encode(Md5::digest(bytes)));
    let encoded = |coding: &'static str, bytes: Vec<u8>| {
        (StatusCode::OK, [("content-encoding", coding), ("etag", "\"1\"")], bytes).into_response()
    };
    let with_digest = |bytes: Vec<u8>, digest: String| {
        let headers = [("content-encoding", "gzip".to_owned()), ("x-goog-hash", digest)];
        (headers, bytes).into_response()
    };
    match ways()[place].name {
        "plain" => file.into_response(),
        "identity" => encoded("identity", file),
        "chunked" => {
            let pieces: Vec<_> =
                packed.chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            ([("content-encoding", "gzip")], body).into_response()
        }
        "digest" => with_digest(packed.clone(), digest(&packed)),
        "other-digest" => with_digest(packed, digest(&file)),
        "members" => encoded("gzip", [gzip(&file[..99]), gzip(&file[99..])].concat()),
        // Google unpacks what its caller does not take packed, and tells the digest of what it keeps.
        "transcoded" => {
            let headers = [
                ("x-goog-stored-content-encoding", "gzip".to_owned()),
                ("x-goog-hash", digest(&packed)),
            ];
            (headers, file).into_response()
        }
        "packed-volume" => encoded("gzip", packed),
        "volume-by-type" => ([("content-type", "application/gzip")], packed).into_response(),
        "volume-packed-again" => encoded("gzip", gzip(&packed)),
        "damaged" => encoded("gzip", packed[..packed.len() - 9].to_vec()),
        coding => encoded(coding, packed),
    }
}

/// A service with a job of which every output comes in another way.
async fn started(setup: Setup) -> (Service, Value) {
    let storage = serve(Router::new().route("/{place}", get(store))).await;
    let setup = setup
        .set("CALLBACKS__INBOX_SECRET", INBOX)
        .set("OUTBOUND__ALLOW_HTTP", true)
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("MIRROR__CONCURRENCY", 32);
    let service = setup.start().await;
    let outputs: Vec<Value> = ways()
        .iter()
        .enumerate()
        .map(|(place, way)| json!({"status": "Available", "extension": way.extension, "structures": [format!("part{place}")], "url": format!("{storage}/{place}")}))
        .collect();
    let result = json!({"success": true, "outputFiles": {"meshes": outputs}});
    let inbox = format!("{}/inbox/{INBOX}", service.callbacks);
    service.post_to(&inbox, result.to_string()).await.expect(200);
    let job = service.jobs().await.remove(0);
    (service, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_file_however_its_storage_packs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (service, job) = started(Setup::new().set("MIRROR__STORE", store_url(folder.path()))).await;
    let id = text(&job["id"]);
    let events = wait_for("an attempt at each output", async || {
        let path = format!("/v1/jobs/{id}/events?limit=200");
        let events = service.get(&path).await.expect(200).json();
        let events = events["events"].as_array().expect("events").clone();
        let mirror = |event: &Value| text(&event["type"]).starts_with("output.mirror");
        let names: std::collections::BTreeSet<String> = events
            .iter()
            .filter(|event| mirror(event))
            .map(|event| event["data"]["output"].to_string())
            .collect();
        (names.len() == ways().len()).then_some(events)
    })
    .await;
    for (place, way) in ways().into_iter().enumerate() {
        let name = format!("meshes-{place}");
        match way.expected {
            Ok(file) => {
                let path = format!("/v1/jobs/{id}/outputs/{name}");
                let copy = service.get(&path).await.expect(200);
                assert!(copy.body == file, "{}: {} bytes", way.name, copy.body.len());
                assert_eq!(copy.header("content-encoding"), None, "{}", way.name);
            }
            Err(expected) => {
                let failed = events.iter().find(|event| {
                    event["type"] == "output.mirror_failed" && event["data"]["output"] == name
                });
                let reason = text(&failed.expect("it failed")["data"]["reason"]);
                assert!(reason.contains(expected), "{}: {reason}", way.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_file_is_no_larger_than_a_copy_may_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new().set("MIRROR__STORE", store_url(folder.path()));
    let (service, job) = started(setup.set("MIRROR__MAX_FILE", "150KB")).await;
    let path = format!("/v1/jobs/{}/events?limit=200", text(&job["id"]));
    wait_for("the refusal of the packed file", async || {
        let events = service.get(&path).await.expect(200).json();
        let events = events["events"].as_array().expect("events").clone();
        events.into_iter().find(|event| {
            event["type"] == "output.mirror_failed"
                && event["data"]["output"] == "meshes-2"
                && text(&event["data"]["reason"]).contains("mirror.max_file")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_the_file_however_its_storage_packs_it() {
    let (service, job) = started(Setup::new()).await;
    let environment = [("FINISHLINE_API", service.api.as_str())];
    let args = ["jobs", "download", text(&job["id"]), "out", "--quiet"];
    let ended = run_program(service.folder(), &args, &environment).await;
    assert_eq!(ended.code, Some(1), "some cannot be unpacked: {ended:?}");
    for (place, way) in ways().into_iter().enumerate() {
        // The job has no reference: its id comes first.
        let name = format!("{}-part{place}{}", text(&job["id"]), way.extension);
        let path = service.folder().join("out").join(name);
        match way.expected {
            Ok(file) => assert!(std::fs::read(&path).expect(way.name) == file, "{}", way.name),
            // Nobody tells the command line a digest of what is packed.
            Err(_) if way.name == "other-digest" => {}
            Err(reason) => {
                assert!(!path.exists(), "{}", way.name);
                assert!(ended.stderr.contains(reason), "{}: {}", way.name, ended.stderr);
            }
        }
    }
}
