//! Downloads of outputs: real files of differing sizes, ranges, and everything that goes wrong in transit.

use std::time::Duration;

use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use finishline::{
    clock::Stopwatch,
    simulator::{FaultRate, Options, Simulator},
};
use md5::{Digest, Md5};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{call, json_of, ready_job, start, submit, token, within};

/// A simulator, its one finished job, and the links of the job's outputs.
struct Finished {
    simulator: Simulator,
    engine_job_id: String,
    links: Vec<String>,
}

impl Finished {
    async fn start(outputs: Value, change: impl FnOnce(&mut Options)) -> Self {
        let simulator = start(change).await;
        simulator.set(|options| options.resign_polls = true);
        let mut job = ready_job("http://127.0.0.1:9/");
        job["outputFiles"]["meshes"] = outputs;
        let reply = json_of(submit(&simulator, &job).await).await;
        let engine_job_id = reply["jobId"].as_str().unwrap().to_owned();
        within(simulator.wait_until(|simulator| simulator.jobs()[0].is_finished())).await;
        let mut finished = Self { simulator, engine_job_id, links: Vec::new() };
        finished.links = finished.fresh_links().await;
        finished
    }

    /// One output of about a million bytes.
    async fn with_one_mesh() -> Self {
        let outputs = json!([{"extension": ".stl", "structures": ["mandible"]}]);
        Self::start(outputs, |options| options.output_size = 1_000_000).await
    }

    async fn fresh_links(&self) -> Vec<String> {
        let url = format!("{}/job/{}", self.simulator.base_url(), self.engine_job_id);
        let poll = call(Method::GET, &url, &token(&self.simulator).await, "").await;
        let result = json_of(poll).await;
        let meshes = result["outputFiles"]["meshes"].as_array().unwrap();
        meshes.iter().map(|mesh| mesh["url"].as_str().unwrap().to_owned()).collect()
    }

    fn expected(&self, index: usize) -> Bytes {
        self.simulator.output_content(&self.engine_job_id, "meshes", index).unwrap().bytes()
    }

    async fn get(&self, index: usize) -> Response {
        call(Method::GET, &self.links[index], "", "").await
    }

    async fn get_range(&self, range: &str, if_range: Option<&str>) -> Response {
        let mut request = reqwest::Client::new().get(&self.links[0]).header("range", range);
        if let Some(known) = if_range {
            request = request.header("if-range", known);
        }
        within(request.send()).await.unwrap()
    }
}

fn md5_of(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

#[tokio::test]
async fn outputs_are_valid_meshes_of_differing_sizes_and_as_large_as_told() {
    let structures = ["mandible", "skull", "tooth11"];
    let outputs: Vec<Value> = [".stl", ".ply", ".obj"]
        .iter()
        .flat_map(|extension| {
            structures.map(|name| json!({"extension": extension, "structures": [name]}))
        })
        .collect();
    for output_size in [0, 1_000_000] {
        let finished = Finished::start(json!(outputs), |options| {
            options.output_size = output_size;
        })
        .await;
        let mut sizes = Vec::new();
        for (index, output) in outputs.iter().enumerate() {
            let file = finished.get(index).await.bytes().await.unwrap();
            assert_eq!(file, finished.expected(index));
            assert!(file.len() as u64 >= output_size);
            match output["extension"].as_str().unwrap() {
                ".stl" => check_stl(&file),
                ".ply" => check_ply(std::str::from_utf8(&file).unwrap()),
                _ => check_obj(std::str::from_utf8(&file).unwrap()),
            }
            sizes.push(file.len());
        }
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!(sizes.len(), outputs.len(), "all sizes differ");
    }
}

fn check_stl(file: &[u8]) {
    let triangles = u32::from_le_bytes(file[80..84].try_into().unwrap()) as usize;
    assert_eq!(file.len(), 84 + 50 * triangles);
}

fn check_ply(file: &str) {
    let (header, body) = file.split_once("end_header\n").unwrap();
    let count = |word: &str| -> usize {
        header.lines().find_map(|line| line.strip_prefix(word)).unwrap().trim().parse().unwrap()
    };
    assert_eq!(body.lines().count(), count("element vertex") + count("element face"));
}

fn check_obj(file: &str) {
    let vertices = file.lines().filter(|line| line.starts_with("v ")).count();
    let faces: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("f ")).collect();
    assert!(faces.len() > 100);
    for corner in faces.iter().flat_map(|face| face.split(' ')) {
        assert!((1..=vertices).contains(&corner.parse().unwrap()));
    }
}

#[tokio::test]
async fn an_output_of_gigabytes_is_read_at_any_place_at_once() {
    let outputs = json!([{"extension": ".stl", "structures": ["mandible"]}]);
    let finished = Finished::start(outputs, |options| options.output_size = 3 << 30).await;
    let head = finished.get_range("bytes=0-83", None).await.bytes().await.unwrap();
    let triangles = u64::from(u32::from_le_bytes(head[80..].try_into().unwrap()));
    let size_bytes = 84 + 50 * triangles;
    assert!(size_bytes >= 3 << 30);
    let (first, last) = (size_bytes - 50, size_bytes - 1);
    let tail = finished.get_range(&format!("bytes={first}-"), None).await;
    assert_eq!(tail.headers()["content-range"], format!("bytes {first}-{last}/{size_bytes}"));
    assert!(!tail.headers().contains_key("x-ms-blob-content-md5"), "none for large files");
    let triangle = tail.bytes().await.unwrap();
    let floats =
        triangle[..48].chunks(4).map(|float| f32::from_le_bytes(float.try_into().unwrap()));
    assert!(floats.into_iter().all(|float| float.abs() < 100.0), "it ends with a triangle");
}

#[tokio::test]
async fn ranges_are_honoured_while_the_file_is_the_one_that_is_known() {
    let finished = Finished::with_one_mesh().await;
    let whole = finished.expected(0);
    let size = whole.len();
    let answer = finished.get(0).await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-length"), size.to_string());
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("content-md5"), md5_of(&whole));
    let (etag, modified) = (header("etag"), header("last-modified"));
    for (range, known, from, to) in [
        ("bytes=1000-1999", None, 1000, 2000),
        ("bytes=1000-", Some(etag.as_str()), 1000, size),
        ("bytes=-1000", Some(modified.as_str()), size - 1000, size),
        ("bytes=1000-999999999", None, 1000, size),
    ] {
        let part = finished.get_range(range, known).await;
        assert_eq!(part.status(), 206, "{range}");
        let last = to - 1;
        assert_eq!(part.headers()["content-range"], format!("bytes {from}-{last}/{size}"));
        assert_eq!(part.headers()["x-ms-blob-content-md5"], md5_of(&whole));
        assert_eq!(part.bytes().await.unwrap(), whole.slice(from..to));
    }
    for beyond in ["bytes=9000000-", "bytes=-0"] {
        let beyond = finished.get_range(beyond, None).await;
        assert_eq!(beyond.status(), 416);
        assert_eq!(beyond.headers()["content-range"], format!("bytes */{size}"));
    }
    assert_eq!(finished.get_range("bytes=1000-", Some("\"another\"")).await.status(), 200);
    finished.simulator.set(|options| options.ignore_ranges = true);
    let ignored = finished.get_range("bytes=1000-", None).await;
    assert_eq!(ignored.status(), 200);
    assert_eq!(ignored.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn the_first_downloads_of_every_file_are_cut_after_so_many_bytes() {
    let outputs = json!([{"extension": ".stl"}, {"extension": ".ply"}]);
    let finished = Finished::start(outputs, |options| {
        options.output_size = 1_000_000;
        options.cut_downloads = FaultRate::FirstOfEach(2);
        options.cut_after = Some(300_000);
    })
    .await;
    for index in 0..2 {
        let whole = finished.expected(index);
        for _ in 0..2 {
            let mut cut = finished.get(index).await;
            assert_eq!(cut.content_length(), Some(whole.len() as u64));
            let mut received = Vec::new();
            let end = loop {
                match cut.chunk().await {
                    Ok(Some(piece)) => received.extend(piece),
                    end => break end,
                }
            };
            assert!(end.is_err());
            assert_eq!(received, whole.slice(..300_000));
        }
        assert_eq!(finished.get(index).await.bytes().await.unwrap(), whole);
    }
}

#[tokio::test]
async fn lengths_lie_as_told_and_the_digest_never_does() {
    let finished = Finished::with_one_mesh().await;
    let (simulator, whole) = (&finished.simulator, finished.expected(0));
    let size = whole.len();

    simulator.set(|options| options.lie_length = 10);
    let longer = finished.get(0).await;
    assert_eq!(longer.content_length(), Some(size as u64 + 10));
    assert!(longer.bytes().await.is_err());

    simulator.set(|options| options.lie_length = -10);
    let shorter = finished.get(0).await;
    assert_eq!(shorter.content_length(), Some(size as u64 - 10));
    assert_eq!(shorter.headers()["content-md5"], md5_of(&whole));
    assert_eq!(shorter.bytes().await.unwrap(), whole.slice(..size - 10));
    let part = finished.get_range("bytes=1000-", None).await;
    assert_eq!(part.headers()["content-range"], format!("bytes 1000-{}/{size}", size - 11));
    assert_eq!(part.bytes().await.unwrap(), whole.slice(1000..size - 10));

    simulator.set(|options| {
        options.lie_length_rate = FaultRate::Never;
        options.corrupt_downloads = FaultRate::Always;
        options.omit_content_length = true;
    });
    let corrupt = finished.get(0).await;
    assert_eq!(corrupt.content_length(), None);
    assert_eq!(corrupt.headers()["content-md5"], md5_of(&whole));
    let received = corrupt.bytes().await.unwrap();
    let wrong = received.iter().zip(&whole).filter(|(one, other)| one != other).count();
    assert_eq!((received.len(), wrong), (size, 1));
    simulator.set(|options| options.content_md5 = false);
    assert!(!finished.get(0).await.headers().contains_key("content-md5"));
}

#[tokio::test]
async fn an_expired_download_link_stays_expired_and_a_polled_one_works() {
    let mut finished = Finished::with_one_mesh().await;
    finished.simulator.set(|options| {
        options.expire_downloads = FaultRate::FirstOfEach(1);
        options.download_answer = Some(503);
        options.download_answer_rate = FaultRate::First(1);
    });
    for _ in 0..2 {
        assert_eq!(finished.get(0).await.status(), 403);
    }
    finished.links = finished.fresh_links().await;
    assert_eq!(finished.get(0).await.status(), 503);
    assert_eq!(finished.get(0).await.bytes().await.unwrap(), finished.expected(0));
}

#[tokio::test]
async fn a_throttled_download_takes_its_time() {
    let finished = Finished::with_one_mesh().await;
    finished.simulator.set(|options| options.throttle = 5_000_000);
    let begun = Stopwatch::start();
    assert_eq!(finished.get(0).await.bytes().await.unwrap(), finished.expected(0));
    assert!(begun.elapsed() >= Duration::from_millis(200));
}
