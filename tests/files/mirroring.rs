//! Copying outputs, from servers of every kind.

use std::{fs, time::Duration};

use finishline::simulator::{FaultRate, Options};
use serde_json::json;

use super::copies::{Mirroring, expect_copies, files_below};
use crate::support::{Setup, run_program, text, wait_for};

/// More than a part of a folder's file, so that copies are written in parts.
const LARGE: u64 = 1_500_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_secured_once_every_output_is_copied_as_it_was_made() {
    let mirroring = Mirroring::start(&[]).await;
    let job = mirroring.submitted(3).await;
    let job = mirroring.secured(&job).await;
    expect_copies(&mirroring.service.engine, mirroring.folder.path(), &job);
    assert_eq!(mirroring.events(&job, "output.mirrored").await.len(), 3);
    assert_eq!(mirroring.events(&job, "job.secured").await.len(), 1);
    let metrics = mirroring.service.get("/metrics").await.expect(200).text();
    assert!(metrics.contains("finishline_mirror_attempts_total{outcome=\"stored\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_does_only_the_right_bytes_are_secured() {
    type Fault = (&'static str, fn(&mut Options), bool);
    // What the server does; whether an attempt fails of it.
    let faults: [Fault; 11] = [
        ("nothing wrong", |_| {}, false),
        ("breaks off once", |one| one.cut_downloads = FaultRate::FirstOfEach(1), false),
        (
            "breaks off again and again",
            |one| (one.cut_downloads, one.cut_after) = (FaultRate::Always, Some(400_000)),
            false,
        ),
        (
            "breaks off, and knows no ranges",
            |one| (one.cut_downloads, one.ignore_ranges) = (FaultRate::FirstOfEach(1), true),
            false,
        ),
        (
            "tells too much",
            |one| (one.lie_length, one.lie_length_rate) = (100, FaultRate::FirstOfEach(1)),
            true,
        ),
        (
            "tells and sends too little",
            |one| (one.lie_length, one.lie_length_rate) = (-100, FaultRate::FirstOfEach(1)),
            false,
        ),
        ("sends a wrong byte", |one| one.corrupt_downloads = FaultRate::FirstOfEach(1), true),
        ("tells no length", |one| one.omit_content_length = true, false),
        (
            "tells no length and knows no ranges",
            |one| (one.omit_content_length, one.ignore_ranges) = (true, true),
            false,
        ),
        (
            "lets links expire",
            |one| (one.expire_downloads, one.resign_polls) = (FaultRate::FirstOfEach(1), true),
            false,
        ),
        (
            "is busy",
            |one| {
                one.download_answer = Some(503);
                one.download_answer_rate = FaultRate::FirstOfEach(1);
            },
            true,
        ),
    ];
    let mirroring = Mirroring::start(&[]).await;
    let (engine, folder) = (&mirroring.service.engine, mirroring.folder.path());
    for (name, change, fails) in faults {
        engine.set(|options| {
            let usual = Options { output_size: LARGE, ..Options::default() };
            *options = Options { processing: options.processing, ..usual };
            change(options);
        });
        let job = mirroring.secured(&mirroring.submitted(2).await).await;
        expect_copies(engine, folder, &job);
        let failures = mirroring.events(&job, "output.mirror_failed").await;
        assert_eq!(!failures.is_empty(), fails, "a server that {name}: {failures:?}");
        // A link's query is a credential.
        assert!(!json!(failures).to_string().contains("http"), "{failures:?}");
    }
    let left: Vec<_> = files_below(folder).into_iter().filter(|path| is_half(path)).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn is_half(path: &std::path::Path) -> bool {
    path.to_string_lossy().contains('#')
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_expire_together_ask_the_engine_once() {
    let mirroring = Mirroring::start(&[("MIRROR__CONCURRENCY", "4")]).await;
    let engine = &mirroring.service.engine;
    engine.set(|options| {
        (options.expire_downloads, options.resign_polls) = (FaultRate::FirstOfEach(1), true);
    });
    let job = mirroring.secured(&mirroring.submitted(4).await).await;
    expect_copies(engine, mirroring.folder.path(), &job);
    assert_eq!(engine.requests().polls, 1);
    assert_eq!(mirroring.events(&job, "delivery.refreshed").await.len(), 1);
    assert_eq!(mirroring.events(&job, "output.mirror_failed").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_beyond_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let mirroring = Mirroring::start(&[("MIRROR__MAX_FILE", "64KiB")]).await;
    let engine = &mirroring.service.engine;
    for is_told in [true, false] {
        engine.set(|options| {
            options.output_size = 100_000;
            (options.omit_content_length, options.ignore_ranges) = (!is_told, !is_told);
        });
        let job = mirroring.submitted(1).await;
        let failed = wait_for("the refusal", async || {
            mirroring.events(&job, "output.mirror_failed").await.pop()
        })
        .await;
        assert_eq!(failed["data"]["final"], true, "{failed}");
        assert!(text(&failed["data"]["reason"]).contains("mirror.max_file"), "{failed}");
        assert_eq!(mirroring.service.job(text(&job["id"])).await["secured"], false);
    }
    assert_eq!(files_below(&mirroring.folder.path().join("files")).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_of_an_output_leads_out_of_its_job_s_folder() {
    let mirroring = Mirroring::start(&[]).await;
    let long = "x".repeat(256);
    let mesh = json!([{"extension": ".stl", "structures": ["mandible"]}]);
    let hostile = json!([{"extension": "./../../../x#1", "structures": ["mandible"]}]);
    let job = json!({
        "inputFiles": {"cbct": {"extension": ".dcm", "downloadUrl": "https://store.example/a.dcm"}},
        "outputFiles": {"../../up": mesh, "m#1": mesh, "..": mesh, "é\u{202e}": mesh,
            "C:\\x": mesh, long: mesh, "meshes": hostile},
    });
    let job = mirroring.service.submitted(&job).await;
    let job = mirroring.secured(&job).await;
    let inside = mirroring.folder.path().join("files").join(text(&job["id"]));
    let files = files_below(mirroring.folder.path());
    assert_eq!(files.len(), 7, "{files:?}");
    for file in files {
        assert_eq!(file.parent(), Some(inside.as_path()));
        assert!(!is_half(&file), "{file:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_finished_after_its_job_was_erased_is_deleted() {
    let mirroring = Mirroring::start(&[]).await;
    let engine = &mirroring.service.engine;
    engine.set(|options| (options.output_size, options.throttle) = (LARGE, 1_000_000));
    let job = mirroring.submitted(1).await;
    let files = mirroring.folder.path().join("files");
    wait_for("half a file", async || files_below(&files).pop()).await;
    let path = format!("/v1/jobs/{}", text(&job["id"]));
    mirroring.service.delete(&path).await.expect(200);
    wait_for("an empty folder", async || files_below(&files).is_empty().then_some(())).await;
    mirroring.service.get(&path).await.expect(410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_into_the_network_is_not_followed() {
    // Another port than the Engine's: not a host the operator named.
    let result = json!({"success": true, "outputFiles": {"meshes": [
        {"extension": ".stl", "structures": ["mandible"], "status": "Available",
         "url": "https://127.0.0.1:9/secret.stl?signature=abc"}]}});
    let service = Setup::new().set("CALLBACKS__INBOX_SECRET", "0123456789abcdef-inbox");
    let folder = tempfile::tempdir().expect("a folder");
    let service =
        service.set("MIRROR__STORE", super::copies::store_url(folder.path())).start().await;
    let inbox = format!("{}/inbox/0123456789abcdef-inbox", service.callbacks);
    service.post_to(&inbox, result.to_string()).await.expect(200);
    let job = service.jobs().await.remove(0);
    let failed = wait_for("the refusal", async || {
        let path = format!("/v1/jobs/{}/events", text(&job["id"]));
        let events = service.get(&path).await.expect(200).json();
        let events = events["events"].as_array().expect("events").clone();
        events.into_iter().find(|event| event["type"] == "output.mirror_failed")
    })
    .await;
    assert_eq!(failed["data"]["reason"], "the address is a private or reserved one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_store_that_cannot_be_used_stops_the_start_with_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("taken"), "").expect("a file");
    let database = format!("sqlite://{}/finishline.db", folder.path().display());
    for store in [
        format!("file://{}/taken", folder.path().display()),
        format!("file://{}/taken/below", folder.path().display()),
        // No account is named.
        "az://container/files".to_owned(),
    ] {
        let environment = [
            ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
            ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
            ("FINISHLINE__DATABASE__URL", &*database),
            ("FINISHLINE__MIRROR__STORE", &*store),
        ];
        let ended = run_program(folder.path(), &["serve"], &environment).await;
        assert_eq!(ended.code, Some(2), "{store}: {ended:?}");
        let last = ended.stderr.lines().last().expect("a line");
        assert!(last.contains(&format!("mirror.store = \"{store}\"")), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for_as_long_as_it_sends() {
    let mirroring = Mirroring::start(&[]).await;
    let engine = &mirroring.service.engine;
    engine.set(|options| (options.output_size, options.throttle) = (300_000, 200_000));
    let job = mirroring.secured(&mirroring.submitted(4).await).await;
    expect_copies(engine, mirroring.folder.path(), &job);
    assert_eq!(mirroring.events(&job, "output.mirror_failed").await.len(), 0);
    // Nothing of it waits for the clock: the pieces decide.
    mirroring.service.clock.advance(Duration::from_secs(1));
}
