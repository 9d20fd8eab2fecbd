//! Copies in a bucket, of a server that speaks S3.
//!
//! The server is moto, installed by `.ci/s3-server`. The invariant: on a machine that calls itself
//! CI the test cannot be left out; elsewhere it says loudly that it was.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use finishline::simulator::{Options, Processing, Simulator};
use reqwest::Method;
use serde_json::Value;

use super::copies::job_of;
use crate::support::{
    Answer, Program, dead_port, free_port, http_client, run_program, text, wait_for,
};

/// More than two parts of a bucket's file.
const LARGE: u64 = 20 * 1024 * 1024;

/// The server wants to see who calls, and does not reckon up the signature.
const CREDENTIAL: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
    SignedHeaders=host, Signature=none";

/// A server of its own for one test.
struct S3Server {
    child: Child,
    origin: String,
}

impl S3Server {
    /// `None` if it is not installed.
    async fn start() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let binary = root.join("target/s3-server/bin/moto_server");
        if !binary.exists() {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "{binary:?} is missing: run .ci/s3-server first");
            eprintln!("\n!!! NOT TESTED: copies in a bucket. Run .ci/s3-server first.\n");
            return None;
        }
        let address = dead_port().await;
        let child = Command::new(binary)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let server = Self { child, origin: format!("http://{address}") };
        wait_for("the S3 server", async || http_client().get(&server.origin).send().await.ok())
            .await;
        server.call(Method::PUT, "/bucket", "").await;
        Some(server)
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = http_client().request(method, format!("{}{path}", self.origin));
        Answer::of(request.header("authorization", CREDENTIAL).body(body)).await.expect(200)
    }

    /// What finishline is told of it, in the platform's own variables.
    fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret-of-the-bucket"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT", &self.origin),
            ("AWS_ALLOW_HTTP", "true"),
            ("FINISHLINE__MIRROR__STORE", "s3://bucket/some/prefix"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_large_and_small_are_copied_to_a_bucket_and_verified_there() {
    let Some(s3) = S3Server::start().await else { return };
    let options = Options { processing: Processing::After(Duration::ZERO), ..Options::default() };
    let engine = Simulator::start(free_port().await, options).await.expect("a simulator");
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}/finishline.db", folder.path().display());
    let callbacks = dead_port().await.to_string();
    let mut environment = s3.environment();
    for (name, value) in [
        ("CALLBACKS__LISTEN", callbacks.as_str()),
        ("CALLBACKS__PUBLIC_URL", &format!("http://{callbacks}")),
        ("API__LISTEN", "127.0.0.1:0"),
        ("API__OPEN_ON_LOOPBACK", "true"),
        ("DATABASE__URL", &database),
        ("ENGINE__BASE_URL", &engine.base_url()),
        ("ENGINE__AUTH__TOKEN_URL", &engine.token_url()),
        ("ENGINE__AUTH__CLIENT_ID", "test"),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        ("SPOOL__SIZE", "1MiB"),
    ] {
        environment.push((format!("FINISHLINE__{name}"), value.to_owned()));
    }
    let program = Program::start(folder.path(), &["serve"], &environment).await;
    let mut copied = Vec::new();
    for output_size in [0, LARGE] {
        engine.set(|options| options.output_size = output_size);
        let request = http_client().post(format!("{}/v1/jobs", program.api));
        let request = request.header("content-type", "application/json");
        let job = Answer::of(request.body(job_of(2).to_string())).await.expect(201).json();
        let url = format!("{}/v1/jobs/{}", program.api, text(&job["id"]));
        let job = wait_for("the job to be secured", async || {
            let job = Answer::of(http_client().get(&url)).await.expect(200).json();
            (job["secured"] == true).then_some(job)
        })
        .await;
        for index in 0..2 {
            let content = engine.output_content(text(&job["engineJobId"]), "meshes", index);
            let content = content.expect("the Engine made it");
            let id = text(&job["id"]);
            let path = format!("/bucket/some/prefix/{id}/{index}-meshes-{index}.stl");
            let copy = s3.call(Method::GET, &path, "").await;
            assert!(copy.body == content.bytes(), "{path} differs");
            assert_eq!(job["outputs"][index]["file"]["sha256"], content.sha256());
            copied.push((path, content));
        }
    }
    let variables: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let verify = async || run_program(folder.path(), &["verify-files", "--json"], &variables).await;
    let ended = verify().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (path, content) = &copied[0];
    let mut wrong = content.bytes().to_vec();
    wrong[90] ^= 1;
    s3.call(Method::PUT, path, wrong).await;
    let ended = verify().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let found: Value = serde_json::from_str(&ended.stdout).expect("one JSON value");
    assert_eq!((&found["verified"], &found["wrong"]), (&3.into(), &1.into()), "{found}");
    let said = format!("{}{}", program.stderr(), ended.stderr);
    assert!(!said.contains("test-secret-of-the-bucket"), "{said}");
}
