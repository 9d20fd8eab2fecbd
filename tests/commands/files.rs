//! Scans up and meshes down, as one command.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::get,
};
use serde_json::{Value, json as json_of};
use sha2::{Digest as _, Sha256};

use crate::{
    ask, assert_failed,
    door::{Door, redirect},
    json,
    process::{Process, command_in},
    shown,
    support::{Ended, Service, Setup, ready_job, run_program, serve, text},
};

const SCAN: &[u8] = b"a scan of a jaw";

/// Two inputs to be uploaded, two meshes.
fn open_job() -> Value {
    json_of!({
        "inputFiles": { "cbct": { "extension": ".dcm" }, "ios_upper": { "extension": ".stl" } },
        "outputFiles": { "meshes": [
            { "extension": ".stl", "structures": ["mandible"] },
            { "extension": ".ply", "structures": ["skull"] },
        ] },
    })
}

/// A service whose jobs finish by themselves, with what the commands need in its folder.
async fn started(setup: Setup) -> (Service, Door) {
    let service = setup.finishing_at_once().start().await;
    let folder = service.folder();
    fs::write(folder.join("job.json"), open_job().to_string()).unwrap();
    fs::write(folder.join("ready.json"), ready_job().to_string()).unwrap();
    fs::write(folder.join("scan.dcm"), SCAN).unwrap();
    fs::write(folder.join("upper.stl"), b"a scan of teeth").unwrap();
    fs::create_dir(folder.join("slices")).unwrap();
    let door = Door::before(&service).await;
    (service, door)
}

async fn through(door: &Door, service: &Service, args: &[&str]) -> Ended {
    run_program(service.folder(), args, &[("FINISHLINE_API", &door.url)]).await
}

/// The names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The file as the Engine's storage has it.
async fn original(service: &Service, job: &Value, output: usize) -> Vec<u8> {
    service.get_from("", text(&job["outputs"][output]["url"])).await.expect(200).body.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_go_up_and_meshes_come_down_without_a_body() {
    let (service, door) = started(Setup::new()).await;
    let args = [
        "submit",
        "--input",
        "cbct=scan.dcm",
        "--input",
        "ios_upper=upper.stl",
        "--mesh",
        "mandible,skull",
        "--mesh",
        "tooth11:.ply",
        "--reference",
        "case-42",
        "--end-user",
        "clinic-7",
        "--download",
        "out/here",
    ];
    let ended = through(&door, &service, &args).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let jobs = service.jobs().await;
    let job = &jobs[0];
    assert_eq!(
        (&job["reference"], &job["endUserId"]),
        (&json_of!("case-42"), &json_of!("clinic-7"))
    );
    assert_eq!(
        job["request"]["outputFiles"]["meshes"],
        json_of!([
            { "extension": ".stl", "structures": ["mandible", "skull"] },
            { "extension": ".ply", "structures": ["tooth11"] },
        ])
    );
    let uploads = &service.engine.jobs()[0].inputs;
    let upload = uploads.iter().find(|input| input.name == "cbct").unwrap().upload.clone().unwrap();
    assert_eq!(upload.content, SCAN);
    let folder = service.folder().join("out/here");
    let found = ["case-42-mandible+skull.stl", "case-42-tooth11.ply"];
    assert_eq!(names(&folder), found);
    for (index, name) in found.into_iter().enumerate() {
        assert_eq!(fs::read(folder.join(name)).unwrap(), original(&service, job, index).await);
        assert!(ended.stdout.contains(&format!("out/here/{name}")), "{}", ended.stdout);
    }
    assert!(ended.stdout.contains("succeeded") && ended.stdout.contains("Available"));

    let again = ["jobs", "download", text(&job["id"]), "out/here", "--json"];
    let again = through(&door, &service, &again).await;
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
    let downloads = json(&again)["downloads"].clone();
    assert_eq!(
        (&downloads[0]["state"], &downloads[1]["state"]),
        (&json_of!("unchanged"), &json_of!("unchanged"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_is_found_before_anything_is_submitted() {
    let (service, _) = started(Setup::new()).await;
    fs::write(service.folder().join("empty.dcm"), b"").unwrap();
    fs::write(service.folder().join("IM0001"), SCAN).unwrap();
    for (args, word) in [
        (&["job.json", "--input", "cbtc=scan.dcm"][..], "cbtc"),
        (&["job.json", "--input", "cbct=no-such.dcm"], "no-such.dcm"),
        (&["job.json", "--input", "cbct=slices"], ".zip"),
        (&["job.json", "--input", "cbct=empty.dcm"], "empty"),
        (&["job.json", "--input", "cbct"], "NAME=FILE"),
        (&["job.json", "--input", "cbct=scan.dcm", "--input", "cbct=scan.dcm"], "twice"),
        (&["ready.json", "--input", "cbct=scan.dcm"], "downloadUrl"),
        (&["ready.json", "--download", "scan.dcm"], "scan.dcm"),
        (&["ready.json", "--force"], "--download"),
        (&["job.json", "--mesh", "mandible", "--input", "cbct=scan.dcm"], "--mesh"),
        (&["job.json", "--reference", "case-42"], "--mesh"),
        (&["--mesh", "mandible"], "--input"),
        (&["--mesh", "mandible:stl", "--input", "cbct=scan.dcm"], "mandible"),
        (&["--mesh", "mandible", "--input", "cbct=IM0001"], "extension"),
    ] {
        let all = [&["submit"], args].concat();
        let ended = ask(&service, &all).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
    }
    assert_eq!(service.jobs().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_tried_again() {
    let (service, door) = started(Setup::new()).await;
    door.refuse_uploads(&[(502, "upload-failed"), (408, "request-timeout")]);
    fs::rename(service.folder().join("upper.stl"), service.folder().join("upper.obj")).unwrap();
    let args = ["submit", "job.json", "--input", "cbct=scan.dcm", "--input", "ios_upper=upper.obj"];
    let ended = through(&door, &service, &args).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(door.uploads(), ["cbct", "cbct", "cbct", "ios_upper"]);
    for words in ["upload-failed", "again in", "announced as .stl, but the file is upper.obj"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let inputs = &service.engine.jobs()[0].inputs;
    assert!(inputs.iter().all(|input| input.notified), "the Engine was told of both");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_not_uploaded_again() {
    let (service, door) = started(Setup::new()).await;
    let args = [
        "submit",
        "job.json",
        "--idempotency-key",
        "case-42",
        "--input",
        "cbct=scan.dcm",
        "--input",
        "ios_upper=upper.stl",
        "--wait",
        "--quiet",
    ];
    fs::write(service.folder().join("part.json"), open_job().to_string()).unwrap();
    let first = ["submit", "part.json", "--idempotency-key", "case-42", "--input", "cbct=scan.dcm"];
    let first = through(&door, &service, &first).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stderr.contains("waits for the upload of: ios_upper"), "{}", first.stderr);
    door.refuse_uploads(&[(409, "link-expired")]);
    let refused = through(&door, &service, &args).await;
    let jobs = service.jobs().await;
    let id = text(&jobs[0]["id"]);
    let command = format!("finishline jobs upload {id} --input ios_upper=upper.stl");
    assert_failed(&refused, 1, &["ios_upper", "link-expired"]);
    assert!(!refused.stderr.contains(&command), "it cannot be repeated: {}", refused.stderr);
    let done = through(&door, &service, &args).await;
    assert_eq!(shown(&done), format!("{id}\n"), "the id alone");
    assert_eq!(door.uploads(), ["cbct", "ios_upper", "ios_upper"]);
    let none = ["jobs", "upload", id, "--input", "cbct=scan.dcm"];
    let none = through(&door, &service, &none).await;
    assert!(none.stderr.contains("cbct is notified already"), "{none:?}");
    assert_eq!((service.jobs().await.len(), door.uploads().len()), (1, 3));
}

/// Where the mesh of a job without a label is downloaded to.
fn mesh(service: &Service, id: &str) -> PathBuf {
    service.folder().join(format!("out/{id}-mandible.stl"))
}

/// A job that has finished, and its id.
async fn finished(service: &Service) -> (Value, String) {
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]).to_owned();
    (service.job_with_status(&id, "succeeded").await, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_ended() {
    let setup = Setup::new().engine(|options| {
        options.output_size = 300_000;
        options.cut_downloads = "first:2".parse().unwrap();
    });
    let (service, door) = started(setup).await;
    let (job, id) = finished(&service).await;
    let ended = through(&door, &service, &["jobs", "download", &id, "out"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ranges = door.ranges();
    assert_eq!(ranges[0], None);
    assert!(ranges.len() == 3 && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    let written = fs::read(mesh(&service, &id)).unwrap();
    assert!(written == original(&service, &job, 0).await, "every byte once, in its place");

    // One that never brings the rest, and begins anew each time, ends.
    service.engine.set(|options| {
        options.cut_downloads = "always".parse().unwrap();
        options.ignore_ranges = true;
    });
    let ended = through(&door, &service, &["jobs", "download", &id, "other", "--quiet"]).await;
    assert_failed(&ended, 1, &["meshes-0", "does not send it to its end"]);
    assert_eq!(names(&service.folder().join("other")), [""; 0], "no half file stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_never_reaches_the_storage_and_nothing_leads_further() {
    let key = "a-key-of-the-api-for-tests";
    let keys = json_of!([{ "name": "all", "key": key }]).to_string();
    let (service, door) = started(Setup::new().set("API__KEYS", keys)).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let storage = seen.clone();
    let storage = Router::new()
        .route(
            "/mesh",
            get(async move |headers: HeaderMap| {
                storage.lock().unwrap().push(headers);
                "a mesh"
            }),
        )
        .route("/further", get(async || redirect("/mesh")));
    let storage = serve(storage).await;
    let environment = [("FINISHLINE_API", door.url.as_str()), ("FINISHLINE_KEY", key)];
    let args = ["submit", "ready.json", "--quiet", "--download", "out"];
    let link = format!("{storage}/mesh?signature=secret");
    door.serve_outputs(move |_| redirect(&link));
    let ended = run_program(service.folder(), &args, &environment).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let out = service.folder().join("out");
    assert_eq!(fs::read(out.join(&names(&out)[0])).unwrap(), b"a mesh");
    let headers = seen.lock().unwrap()[0].clone();
    assert!(!headers.contains_key("authorization") && !format!("{headers:?}").contains(key));

    let link = format!("{storage}/further?signature=secret");
    door.serve_outputs(move |_| redirect(&link));
    let args = ["submit", "ready.json", "--quiet", "--download", "other"];
    let ended = run_program(service.folder(), &args, &environment).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("answered 307") && !ended.stderr.contains("secret"));
    assert_eq!(seen.lock().unwrap().len(), 1);

    let link = storage.replace("http://", "http://me:secret@") + "/mesh";
    for link in [link, "file:///etc/hostname".to_owned(), "data:,secret".to_owned()] {
        door.serve_outputs(move |_| redirect(&link));
        let args = ["submit", "ready.json", "--quiet", "--download", "third"];
        let ended = run_program(service.folder(), &args, &environment).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = &ended.stderr;
        assert!(
            line.contains("address that is not followed") && !line.contains("secret"),
            "{line}"
        );
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_asked_once_for_links_that_have_expired() {
    let (service, door) = started(Setup::new()).await;
    let (job, id) = finished(&service).await;
    let polls = || service.engine.job(text(&job["engineJobId"])).unwrap().polls;
    let storage = Router::new()
        .route("/old", get(async || StatusCode::FORBIDDEN))
        .route("/new", get(async || "a mesh"));
    let storage = serve(storage).await;
    let (old, new) = (format!("{storage}/old"), format!("{storage}/new"));
    let (first, calls) = (old.clone(), AtomicUsize::new(0));
    door.serve_outputs(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => redirect(&first),
        _ => redirect(&new),
    });
    let ended = through(&door, &service, &["jobs", "download", &id, "out", "--quiet"]).await;
    assert_eq!(shown(&ended), "");
    assert_eq!(fs::read(mesh(&service, &id)).unwrap(), b"a mesh");
    assert_eq!(polls(), 1);
    door.serve_outputs(move |_| redirect(&old));
    let ended = through(&door, &service, &["jobs", "download", &id, "other", "--quiet"]).await;
    assert_failed(&ended, 1, &["answered 403"]);
    assert_eq!(polls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_a_link_for_another_reason_is_quoted_and_no_link_is_asked_for() {
    let (service, door) = started(Setup::new()).await;
    let (job, id) = finished(&service).await;
    let refusal = "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>\
                   <StringToSign>hush</StringToSign></Error>";
    let storage = Router::new().route("/x", get(async move || (StatusCode::FORBIDDEN, refusal)));
    let link = format!("{}/x", serve(storage).await);
    door.serve_outputs(move |_| redirect(&link));
    let ended = through(&door, &service, &["jobs", "download", &id, "out", "--quiet"]).await;
    assert_failed(&ended, 1, &["answered 403 SignatureDoesNotMatch: no"]);
    assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
    assert_eq!(service.engine.job(text(&job["engineJobId"])).unwrap().polls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_differs_is_kept_unless_forced() {
    let (service, door) = started(Setup::new()).await;
    let (job, id) = finished(&service).await;
    let place = mesh(&service, &id);
    fs::create_dir(service.folder().join("out")).unwrap();
    let mut other = original(&service, &job, 0).await;
    let last = other.len() - 1;
    other[last] ^= 1;
    for bytes in [b"mine".to_vec(), other] {
        fs::write(&place, &bytes).unwrap();
        let kept = through(&door, &service, &["jobs", "download", &id, "out"]).await;
        assert_eq!(kept.code, Some(1), "{kept:?}");
        assert!(kept.stderr.contains("-mandible.stl is there and differs"), "{}", kept.stderr);
        assert_eq!(fs::read(&place).unwrap(), bytes);
    }
    let forced = ["jobs", "wait", &id, "--download", "out", "--force"];
    let forced = through(&door, &service, &forced).await;
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(fs::read(&place).unwrap(), original(&service, &job, 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_those_on_record_are_never_put_in_place() {
    let (service, door) = started(Setup::new()).await;
    let (_, id) = finished(&service).await;
    let etag = |bytes: &[u8]| {
        let digits =
            Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("\"{digits}\"")
    };
    let wrong = etag(b"the mesh");
    door.serve_outputs(move |_| ([("etag", wrong.clone())], "the mash").into_response());
    let ended = through(&door, &service, &["jobs", "download", &id, "out", "--quiet"]).await;
    assert_failed(&ended, 1, &["not what the service has on record"]);
    assert_eq!(names(&service.folder().join("out")), [""; 0]);
    let right = etag(b"the mesh");
    door.serve_outputs(move |_| ([("etag", right.clone())], "the mesh").into_response());
    let ended = through(&door, &service, &["jobs", "download", &id, "out", "--quiet"]).await;
    assert_eq!(shown(&ended), "");
    assert_eq!(fs::read(mesh(&service, &id)).unwrap(), b"the mesh");
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_do_not_exist_are_shown_and_are_no_failure() {
    let setup = Setup::new().engine(|options| {
        options.missing = vec!["mandible".into()];
        options.failed = vec!["skull".into()];
    });
    let (service, door) = started(setup).await;
    let mut body = ready_job();
    body["outputFiles"]["meshes"] = json_of!([
        { "extension": ".stl", "structures": ["mandible"] },
        { "extension": ".stl", "structures": ["skull"] },
        { "extension": ".stl", "structures": ["tooth11"] },
    ]);
    fs::write(service.folder().join("job.json"), body.to_string()).unwrap();
    let args = ["submit", "job.json", "--download", "out"];
    let table = through(&door, &service, &args).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    for word in ["partial", "Missing", "Failed", "absent", "written", "-tooth11.stl"] {
        assert!(table.stdout.contains(word), "{word}: {}", table.stdout);
    }
    let value =
        json(&through(&door, &service, &[&args[..], &["--json", "--quiet"]].concat()).await);
    let states = value["downloads"].as_array().unwrap().iter().map(|one| text(&one["state"]));
    assert_eq!(states.collect::<Vec<_>>(), ["absent", "absent", "written"]);
    assert_eq!(value["status"], "partial");

    service.engine.set(|options| options.fail_job = "always".parse().unwrap());
    let failed = through(&door, &service, &args).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("failed"), "{}", failed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_names_the_command_that_goes_on() {
    let service = Service::start().await;
    fs::write(service.folder().join("ready.json"), ready_job().to_string()).unwrap();
    let door = Door::before(&service).await;
    let args = ["submit", "ready.json", "--download", "my meshes"];
    let mut submitting = Process::of(command_in(service.folder(), &door.url, &args));
    submitting.says("waiting for its result").await;
    submitting.signal("-INT");
    assert_eq!(submitting.ended().await, Some(130));
    let jobs = service.jobs().await;
    let id = text(&jobs[0]["id"]);
    let command = format!("finishline jobs wait {id} --download 'my meshes'");
    submitting.says(&format!("resume with: {command}")).await;

    service.finish(&jobs[0]).await;
    let resumed = ["jobs", "wait", id, "--download", "my meshes"];
    let resumed = through(&door, &service, &resumed).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(names(&service.folder().join("my meshes")), [format!("{id}-mandible.stl")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_one_after_the_other_share_a_folder_and_are_named_as_the_service_names_them() {
    let files = tempfile::tempdir().unwrap();
    let store = format!("file://{}", files.path().display());
    let (service, door) = started(Setup::new().set("MIRROR__STORE", store)).await;
    let mut expected = Vec::new();
    for reference in [Some("patient a"), Some("mesh-viewer"), None, None] {
        let mut body = ready_job();
        if let Some(reference) = reference {
            body["finishline"] = json_of!({ "reference": reference });
        }
        body["outputFiles"]["meshes"] = json_of!([
            { "extension": ".stl", "structures": ["mandible"] },
            { "extension": ".stl", "structures": ["mandible"] },
        ]);
        fs::write(service.folder().join("job.json"), body.to_string()).unwrap();
        let args = ["submit", "job.json", "--download", "out", "--json"];
        let ended = through(&door, &service, &args).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let value = json(&ended);
        let id = text(&value["id"]);
        let label = reference.unwrap_or(id);
        expected.push(format!("{label}-mandible.stl"));
        expected.push(format!("{label}-mandible-2.stl"));
        let states: Vec<_> =
            value["downloads"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
        assert_eq!(states, ["written", "written"], "{value}");
        // The HTTP API gives the file the same name.
        let secured = crate::support::wait_for("the copies", async || {
            Some(service.job(id).await).filter(|job| job["secured"] == true)
        });
        secured.await;
        let answer = service.get(&format!("/v1/jobs/{id}/outputs/meshes-0")).await.expect(200);
        let named = answer.headers["content-disposition"].to_str().unwrap().to_owned();
        assert!(named.contains(&format!("\"{label}-mandible.stl\"")), "{named}");
    }
    expected.sort();
    assert_eq!(names(&service.folder().join("out")), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_kept_is_not_called_failed_and_is_no_success_either() {
    let (service, door) = started(Setup::new()).await;
    let (_, id) = finished(&service).await;
    fs::create_dir(service.folder().join("out")).unwrap();
    fs::write(service.folder().join(format!("out/{id}-mandible.stl")), "mine").unwrap();
    let kept = through(&door, &service, &["jobs", "download", &id, "out"]).await;
    assert!(kept.stdout.contains("kept") && !kept.stdout.contains("failed"), "{kept:?}");
    let kept = through(&door, &service, &["jobs", "download", &id, "out", "--json"]).await;
    assert_eq!((kept.code, &json(&kept)["downloads"][0]["state"]), (Some(1), &json_of!("kept")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_files_that_are_not_utf8_work() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let (service, door) = started(Setup::new()).await;
    let folder = service.folder();
    let odd = |text: &[u8]| OsStr::from_bytes(text).to_owned();
    fs::write(folder.join(odd(b"scan-\xff.dcm")), SCAN).unwrap();
    fs::write(folder.join(odd(b"job-\xff.json")), open_job().to_string()).unwrap();
    fs::write(folder.join(odd(b"ready-\xff.json")), ready_job().to_string()).unwrap();
    let run = async |args: &[&[u8]]| {
        let mut command = command_in(folder, &door.url, &[]);
        command.args(args.iter().map(|word| odd(word)));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let submitted = run(&[
        b"submit",
        b"job-\xff.json",
        b"--input",
        b"cbct=scan-\xff.dcm",
        b"--input",
        b"ios_upper=upper.stl",
    ])
    .await;
    assert_eq!(submitted.0, Some(0), "{submitted:?}");
    let uploads = &service.engine.jobs()[0].inputs;
    let upload = uploads.iter().find(|input| input.name == "cbct").unwrap().upload.clone().unwrap();
    assert_eq!(upload.content, SCAN);
    let downloaded = run(&[b"submit", b"ready-\xff.json", b"--download", b"out-\xff"]).await;
    assert_eq!(downloaded.0, Some(0), "{downloaded:?}");
    assert_eq!(names(&folder.join(odd(b"out-\xff"))).len(), 1);
    let id = text(&service.jobs().await[0]["id"]).to_owned();
    let result = run(&[b"jobs", b"result", id.as_bytes(), b"--output", b"result-\xff"]).await;
    assert_eq!(result.0, Some(0), "{result:?}");
    assert!(folder.join(odd(b"result-\xff")).exists());

    // Wrong words of any bytes are wrong usage, and no panic.
    for args in [
        &[&b"jobs"[..], b"show", b"\xff"][..],
        &[b"jobs", b"list", b"--reference", b"\xff"],
        &[b"jobs", b"list", b"--key", b"\xff"],
        &[b"submit", b"ready.json", b"--input", b"\xff=scan.dcm"],
        &[b"\xff"],
        &[b"--\xff"],
        &[b"--config", b"no-\xff.toml", b"healthcheck"],
        &[b"jobs", b"list", b"--key-file", b"no-\xff"],
    ] {
        let ended = run(args).await;
        assert_eq!((ended.0, ended.1.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(!ended.2.contains("panicked") && !ended.2.is_empty(), "{ended:?}");
    }

    // A copy of the database in such a folder, and one of such a name.
    let database = format!("sqlite://{}", service.database.display());
    fs::create_dir(folder.join(odd(b"copies-\xff"))).unwrap();
    for place in [&b"copies-\xff/one.db"[..], b"two-\xff.db"] {
        for command in [&b"backup"[..], b"restore-check"] {
            let mut program = command_in(folder, &door.url, &[]);
            program.args([odd(command), odd(place)]).env("FINISHLINE__DATABASE__URL", &database);
            let output = tokio::task::spawn_blocking(move || program.output());
            let output = output.await.unwrap().unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }
    }
}
