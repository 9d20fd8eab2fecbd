//! Mirrored files through the API: whole, in part, as a bundle; and what stands in for them.

use std::{
    io::{Cursor, Read, Write},
    path::Path,
};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::support::*;

/// A finished job with these outputs, every one of which is mirrored.
async fn mirrored(service: &Service, outputs: Value, reference: &str) -> Value {
    let body = ready_job_with(json!({
        "outputFiles": {"meshes": outputs}, "finishline": {"reference": reference},
    }));
    let job = service.submitted(&body).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    wait_for("the files to be copied", async || {
        Some(service.job(id).await).filter(|job| job["secured"] == true)
    })
    .await
}

fn mesh(structure: &str) -> Value {
    json!({"extension": ".stl", "structures": [structure]})
}

async fn get_with(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = service.request(Method::GET, path);
    let with = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    Answer::of(headers.iter().fold(request, with)).await
}

fn output_path(job: &Value, name: &str) -> String {
    format!("/v1/jobs/{}/outputs/{name}", text(&job["id"]))
}

/// The file of a job's first output in the folder `files`.
fn stored_file(files: &Path, job: &Value, name: &str) -> std::path::PathBuf {
    let folder = files.join(text(&job["id"]));
    let found = std::fs::read_dir(folder).expect("the job's folder");
    let found = found.map(|entry| entry.expect("an entry").path());
    found.into_iter().find(|path| path.to_string_lossy().contains(name)).expect("the file")
}

/// Other bytes, as many as before.
fn damage(file: &Path) {
    let mut content = std::fs::read(file).expect("the file");
    *content.last_mut().expect("a byte") ^= 1;
    std::fs::write(file, content).expect("it is written");
}

#[tokio::test]
async fn a_mirrored_file_is_served_whole_in_part_and_only_if_it_is_new() {
    let service = Setup::new().set("MIRROR__STORE", "memory:///").start().await;
    let job = mirrored(&service, json!([mesh("mandible")]), "case-42").await;
    let path = output_path(&job, "meshes-0");
    let file = &job["outputs"][0]["file"];
    let whole = service.get(&path).await.expect(200);
    let digest: String =
        Sha256::digest(&whole.body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(file["sha256"], digest);
    let length = whole.body.len();
    assert_eq!(file["bytes"], length);
    assert_eq!(whole.header("content-length"), Some(length.to_string().as_str()));
    assert_eq!(whole.header("content-type"), file["contentType"].as_str());
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    let disposition = "attachment; filename=\"case-42-mandible.stl\"";
    assert_eq!(whole.header("content-disposition"), Some(disposition));
    let etag = format!("\"{digest}\"");
    assert_eq!(whole.header("etag"), Some(etag.as_str()));

    let part = get_with(&service, &path, &[("range", "bytes=10-19")]).await.expect(206);
    assert_eq!(part.body, whole.body[10..20]);
    assert_eq!(part.header("content-range"), Some(format!("bytes 10-19/{length}").as_str()));
    assert_eq!(part.header("content-length"), Some("10"));
    let end = get_with(&service, &path, &[("range", "bytes=-7"), ("if-range", &etag)]).await;
    assert_eq!(end.expect(206).body, whole.body[length - 7..]);
    for headers in [
        [("range", "bytes=10-19"), ("if-range", "\"another\"")],
        [("range", "bytes=0-1,5-6"), ("accept", "*/*")],
    ] {
        let answer = get_with(&service, &path, &headers).await.expect(200);
        assert_eq!(answer.body, whole.body, "{headers:?}");
    }
    let beyond = format!("bytes={length}-");
    let beyond = get_with(&service, &path, &[("range", &beyond)]).await;
    beyond.problem(416, "range-not-satisfiable");
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{length}").as_str()));

    let known =
        get_with(&service, &path, &[("if-none-match", &etag), ("range", "bytes=0-0")]).await;
    let known = known.expect(304);
    assert!(known.body.is_empty() && known.header("etag") == Some(etag.as_str()));
    get_with(&service, &path, &[("if-none-match", "\"another\"")]).await.expect(200);

    let head = Answer::of(service.request(Method::HEAD, &path)).await.expect(200);
    assert!(head.body.is_empty());
    for name in ["content-length", "etag", "content-disposition", "accept-ranges"] {
        assert_eq!(head.header(name), whole.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_label_never_leads_out_of_the_folder_that_a_file_is_saved_in() {
    let service = Setup::new().set("MIRROR__STORE", "memory:///").start().await;
    for (reference, expected) in [
        ("../../etc/\"x\"\\", "attachment; filename=\"_.._etc__x__-skull.stl\""),
        (
            "Müller",
            "attachment; filename=\"M_ller-skull.stl\"; filename*=UTF-8''M%C3%BCller-skull.stl",
        ),
    ] {
        let job = mirrored(&service, json!([mesh("skull")]), reference).await;
        let answer = service.get(&output_path(&job, "meshes-0")).await.expect(200);
        assert_eq!(answer.header("content-disposition"), Some(expected));
    }
}

#[tokio::test]
async fn without_a_copy_the_engines_link_stands_in_and_without_a_link_the_reason() {
    let setup = Setup::new().engine(|options| options.missing = vec!["skull".into()]);
    let service = setup.start().await;
    let body =
        ready_job_with(json!({"outputFiles": {"meshes": [mesh("mandible"), mesh("skull")]}}));
    let job = service.submitted(&body).await;
    let early = service.get(&output_path(&job, "meshes-0")).await.problem(404, "not-found");
    assert!(text(&early["detail"]).contains("submitted"), "{early}");
    let job = service.finish(&job).await;
    let redirect = service.get(&output_path(&job, "meshes-0")).await.expect(307);
    assert_eq!(redirect.header("location"), job["outputs"][0]["url"].as_str());
    assert_eq!(redirect.header("cache-control"), Some("no-store"));
    let missing = service.get(&output_path(&job, "meshes-1")).await.problem(404, "not-found");
    assert!(text(&missing["detail"]).contains("Missing"), "{missing}");
    service.get(&output_path(&job, "meshes-7")).await.problem(404, "not-found");
    let path = format!("/v1/jobs/{}/outputs", text(&job["id"]));
    let list = service.get(&path).await.expect(200).json();
    assert_eq!(list["outputs"], job["outputs"]);
    service.get(&format!("{path}?bundle=zip")).await.problem(404, "not-found");
    assert_eq!(service.get(&format!("{path}?bundle=rar")).await.invalid_at(), ["/bundle"]);
    assert_eq!(service.get(&format!("{path}?x=1")).await.invalid_at(), ["/x"]);

    service.delete(&format!("/v1/jobs/{}", text(&job["id"]))).await.expect(200);
    for path in [output_path(&job, "meshes-0"), path.clone(), format!("{path}?bundle=zip")] {
        service.get(&path).await.problem(410, "gone");
    }
}

#[tokio::test]
async fn a_damaged_copy_is_served_to_nobody_and_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    let setup = Setup::new().set("MIRROR__STORE", format!("file://{}", files.display()));
    let mut service = setup.start().await;
    let job = mirrored(&service, json!([mesh("mandible")]), "case-42").await;
    let path = output_path(&job, "meshes-0");
    let whole = service.get(&path).await.expect(200).body;
    service.stop().await;
    damage(&stored_file(&files, &job, "meshes-0"));
    service.start_again().await;
    let redirect = service.get(&path).await.expect(307);
    assert_eq!(redirect.header("location"), job["outputs"][0]["url"].as_str());
    let again = wait_for("the copy to be made anew", async || {
        Some(service.get(&path).await).filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(again.body, whole);
}

#[tokio::test]
async fn a_file_store_that_is_out_of_reach_is_its_own_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    let setup = Setup::new().set("MIRROR__STORE", format!("file://{}", files.display()));
    let service = setup.start().await;
    let job = mirrored(&service, json!([mesh("mandible")]), "case-42").await;
    std::fs::rename(&files, folder.path().join("elsewhere")).expect("it is moved");
    std::fs::write(&files, b"no folder").expect("it is written");
    let answer = service.get(&output_path(&job, "meshes-0")).await;
    answer.problem(503, "file-store-unavailable");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_bundle_holds_every_file_under_a_name_of_its_own() {
    let setup = Setup::new().engine(|options| options.missing = vec!["tooth11".into()]);
    let service = setup.set("MIRROR__STORE", "memory:///").start().await;
    let outputs = json!([mesh("mandible"), mesh("tooth11"), mesh("Mandible"), mesh("skull")]);
    let job = mirrored(&service, outputs, "case-42").await;
    let path = format!("/v1/jobs/{}/outputs?bundle=zip", text(&job["id"]));
    let bundle = service.get(&path).await.expect(200);
    assert_eq!(bundle.header("content-type"), Some("application/zip"));
    assert_eq!(bundle.header("content-disposition"), Some("attachment; filename=\"case-42.zip\""));
    let length = bundle.body.len().to_string();
    assert_eq!(bundle.header("content-length"), Some(length.as_str()));
    let mut archive = ZipArchive::new(Cursor::new(bundle.body)).expect("it is a zip");
    let expected = [
        ("case-42-mandible.stl", "meshes-0"),
        ("case-42-Mandible-2.stl", "meshes-2"),
        ("case-42-skull.stl", "meshes-3"),
    ];
    assert_eq!(archive.len(), expected.len());
    for (position, (name, output)) in expected.into_iter().enumerate() {
        let mut file = archive.by_index(position).expect("a file");
        assert_eq!(file.name().expect("a name"), name);
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("its digest fits");
        assert_eq!(content, service.get(&output_path(&job, output)).await.expect(200).body);
    }
}

/// Such readers know nothing of the directory at the end.
#[tokio::test]
async fn a_bundle_opens_in_readers_that_stream() {
    let service = Setup::new().set("MIRROR__STORE", "memory:///").start().await;
    let outputs = json!([mesh("mandible"), mesh("skull"), mesh("left_nerve")]);
    let job = mirrored(&service, outputs, "Müller").await;
    let path = format!("/v1/jobs/{}/outputs?bundle=zip", text(&job["id"]));
    let bundle = service.get(&path).await.expect(200).body;
    let mut stream: &[u8] = &bundle;
    for position in 0..3 {
        let next = zip::read::read_zipfile_from_stream(&mut stream);
        let mut file = next.expect("its header tells all").expect("a file");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("its digest fits");
        let output = output_path(&job, &format!("meshes-{position}"));
        assert_eq!(content, service.get(&output).await.expect(200).body, "{position}");
    }
    let end = zip::read::read_zipfile_from_stream(&mut stream).expect("the directory");
    assert!(end.is_none(), "there are three files");
}

/// Java is where such readers are most used.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_opens_in_java_as_it_arrives() {
    if std::process::Command::new("javac").arg("-version").output().is_err() {
        let what = "Java is not installed";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}; .ci/run installs it");
        // Not `eprintln`, which is shown for failing tests only.
        let _ = writeln!(std::io::stderr(), "\nNOT READ WITH JAVA: {what}; see .ci/run\n");
        return;
    }
    let service = Setup::new().set("MIRROR__STORE", "memory:///").start().await;
    let outputs = json!([mesh("mandible"), mesh("skull"), mesh("left_nerve")]);
    let job = mirrored(&service, outputs, "Müller").await;
    let path = format!("/v1/jobs/{}/outputs?bundle=zip", text(&job["id"]));
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("bundle.zip");
    std::fs::write(&archive, service.get(&path).await.expect(200).body).expect("written");
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/ReadAsItArrives.java");
    let ended = std::process::Command::new("java")
        .arg(reader)
        .stdin(std::fs::File::open(&archive).expect("the archive"))
        .output()
        .expect("java runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let mut expected = String::new();
    for (position, name) in ["mandible", "skull", "left_nerve"].into_iter().enumerate() {
        let output = output_path(&job, &format!("meshes-{position}"));
        let file = service.get(&output).await.expect(200).body;
        let digest: String =
            Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        expected += &format!("{digest} Müller-{name}.stl\n");
    }
    assert_eq!(String::from_utf8_lossy(&ended.stdout).replace("\r\n", "\n"), expected);
}

#[tokio::test]
async fn a_bundle_that_breaks_off_does_not_look_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    let setup = Setup::new().set("MIRROR__STORE", format!("file://{}", files.display()));
    let mut service = setup.start().await;
    let job = mirrored(&service, json!([mesh("mandible"), mesh("skull")]), "case-42").await;
    service.stop().await;
    damage(&stored_file(&files, &job, "meshes-1"));
    service.start_again().await;
    let path = format!("/v1/jobs/{}/outputs?bundle=zip", text(&job["id"]));
    let response = service.request(Method::GET, &path).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "the connection is broken off");
}

/// What a storage may say that its file is; what it is served as.
const TOLD: [(&str, &str); 10] = [
    ("model/stl", "model/stl"),
    ("Model/OBJ; charset=utf-8", "model/obj"),
    ("application/dicom", "application/dicom"),
    ("text/plain", "text/plain"),
    ("text/html", "application/octet-stream"),
    ("TEXT/HTML; charset=utf-8", "application/octet-stream"),
    ("image/svg+xml", "application/octet-stream"),
    ("application/xml", "application/octet-stream"),
    ("text/javascript", "application/octet-stream"),
    ("made/up", "application/octet-stream"),
];

#[tokio::test]
async fn a_file_is_served_as_one_of_a_few_types_whatever_its_storage_says() {
    use axum::{Router, extract::Path, http::header::CONTENT_TYPE, routing::get};
    let file =
        async |Path(place): Path<usize>| ([(CONTENT_TYPE, TOLD[place].0)], "<script>1</script>");
    let storage = serve(Router::new().route("/{place}", get(file))).await;
    let setup = Setup::new().set("MIRROR__STORE", "memory:///");
    let setup = setup.set("OUTBOUND__ALLOW_PRIVATE", true).set("OUTBOUND__ALLOW_HTTP", true);
    let service = setup.start().await;
    let meshes: Vec<Value> = TOLD.iter().map(|_| mesh("mandible")).collect();
    let body = ready_job_with(json!({"outputFiles": {"meshes": meshes}}));
    let job = service.submitted(&body).await;
    let id = text(&job["id"]);
    let outputs: Vec<Value> = (0..TOLD.len())
        .map(|place| json!({"status": "Available", "extension": ".stl", "structures": ["mandible"], "url": format!("{storage}/{place}")}))
        .collect();
    let result = json!({"success": true, "outputFiles": {"meshes": outputs}});
    service.post_to(&service.callback_url(id), result.to_string()).await.expect(200);
    let job = wait_for("the files to be copied", async || {
        Some(service.job(id).await).filter(|job| job["secured"] == true)
    })
    .await;
    for (place, (told, served)) in TOLD.iter().enumerate() {
        let answer = service.get(&output_path(&job, &format!("meshes-{place}"))).await.expect(200);
        assert_eq!(answer.header("content-type"), Some(*served), "{told}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{told}");
        let disposition = answer.header("content-disposition").expect("a disposition");
        assert!(disposition.starts_with("attachment"), "{told}: {disposition}");
        assert_eq!(job["outputs"][place]["file"]["contentType"], *served, "{told}");
    }
}
