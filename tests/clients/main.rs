//! The OpenAPI document in the hands of its users: it is checked by a validator, and clients that are
//! generated from it submit, upload, wait and read at the running program.
//!
//! Where the generators are absent, the tests say so and pass; where `CI=true`, they fail.
//! `.ci/clients` installs them.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::*;

/// Where `.ci/clients` puts what it installs; clients are made below it, so that they find it.
const TOOLS: &str = "target/clients";

const KEY: &str = "a-key-of-generated-clients";

/// The program, an Engine beside it, and the document that it serves, in a folder for one client.
struct Stage {
    tools: PathBuf,
    folder: tempfile::TempDir,
    service: Program,
    /// Runs as long as the service.
    _engine: Program,
}

impl Stage {
    /// `None`, said loudly, where the generators are not installed.
    async fn set() -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(TOOLS);
        if !tools.join("installed").is_file() {
            assert!(env::var("CI").as_deref() != Ok("true"), ".ci/clients has not been run");
            // Not `eprintln`, which is shown for failing tests only.
            let words = "the generators are not installed; see .ci/clients";
            let _ = writeln!(std::io::stderr(), "\nNOT TESTED WITH GENERATED CLIENTS: {words}\n");
            return None;
        }
        let folder = tempfile::tempdir_in(&tools).expect("a folder");
        let args = ["simulate-engine", "--listen", "127.0.0.1:0", "--processing", "0s"];
        let engine = Program::start(folder.path(), &args, &[]).await;
        let origin = engine.ready.split_whitespace().find_map(|word| {
            let (_, address) = word.split_once("http://")?;
            Some(format!("http://{}", address.split('/').next().unwrap_or_default()))
        });
        let origin = origin.expect("the simulator says its address");
        let base_url = format!("{origin}/24.06");
        let token_url = format!("{origin}/oauth/token");
        // The Engine is told the public URL, so the port is chosen beforehand.
        let callbacks = dead_port().await.to_string();
        let public_url = format!("http://{callbacks}");
        let keys = json!([{"name": "clients", "key": KEY}]).to_string();
        let settings = [
            ("CALLBACKS__LISTEN", callbacks.as_str()),
            ("CALLBACKS__PUBLIC_URL", public_url.as_str()),
            ("ENGINE__BASE_URL", base_url.as_str()),
            ("ENGINE__AUTH__TOKEN_URL", token_url.as_str()),
            ("ENGINE__AUTH__CLIENT_ID", "test"),
            ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
            ("MIRROR__STORE", "memory:///"),
            ("API__KEYS", keys.as_str()),
        ];
        let service = Program::serve(folder.path(), &settings).await;
        let document = http_client().get(format!("{}/openapi.json", service.api)).send().await;
        let document = document.expect("an answer").bytes().await.expect("the document");
        fs::write(folder.path().join("openapi.json"), document).expect("written");
        Some(Self { tools, folder, service, _engine: engine })
    }

    /// Runs a tool in the client's folder to its end, and expects that it succeeds.
    async fn run(&self, program: impl AsRef<Path>, args: &[&str]) {
        let mut command = Command::new(self.tools.join(program));
        command.args(args).current_dir(self.folder.path());
        command.env("FINISHLINE_API", &self.service.api).env("FINISHLINE_KEY", KEY);
        let shown = format!("{command:?}");
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("it does not panic").expect("it starts");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{shown}\n{stdout}\n{stderr}");
    }

    /// Puts one of the clients of this folder beside what is generated.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }
}

#[tokio::test]
async fn the_document_is_valid_openapi_3_1() {
    let Some(stage) = Stage::set().await else { return };
    stage.run("python/bin/openapi-spec-validator", &["--schema", "3.1", "openapi.json"]).await;
}

#[tokio::test]
async fn a_generated_python_client_submits_uploads_waits_and_reads() {
    let Some(stage) = Stage::set().await else { return };
    stage.put("generator.yaml", "post_hooks: []\n");
    let generate =
        ["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "generated"];
    let further = ["--config", "generator.yaml", "--fail-on-warning"];
    stage.run("python/bin/openapi-python-client", &[&generate[..], &further].concat()).await;
    stage.put("client.py", include_str!("client.py"));
    stage.run("python/bin/python", &["-m", "compileall", "-q", "generated"]).await;
    stage.run("python/bin/mypy", &["--strict", "client.py"]).await;
    stage.run("python/bin/python", &["client.py"]).await;
}

#[tokio::test]
async fn a_generated_typescript_client_submits_uploads_waits_and_reads() {
    let Some(stage) = Stage::set().await else { return };
    let bin = Path::new("node_modules/.bin");
    stage.run(bin.join("openapi-typescript"), &["openapi.json", "-o", "api.d.ts"]).await;
    stage.put("client.ts", include_str!("client.ts"));
    stage.put("package.json", r#"{"type": "module"}"#);
    let strict = ["--strict", "--target", "es2022", "--module", "nodenext", "client.ts"];
    stage.run(bin.join("tsc"), &strict).await;
    let node = find("node").expect("node, which npm came with");
    stage.run(node, &["client.js"]).await;
}

/// A program of the machine.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
