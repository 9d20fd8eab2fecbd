//! Jobs with outputs to be copied, and how their copies are looked at.
//!
//! The invariant: what a copy must hold is asked of the simulated Engine that made the file, never
//! of the service.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use finishline::{clock::Clock, simulator::Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Service, Setup, text, wait_for};

/// A service that copies outputs into a folder. Its clock is moved by hand.
pub struct Mirroring {
    pub service: Service,
    pub folder: TempDir,
}

impl Mirroring {
    /// With settings beside those of mirroring.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Clock::system().now());
        let mut setup = Setup::new().finishing_at_once().clock(&clock);
        setup = setup.set("MIRROR__STORE", store_url(folder.path()));
        for (name, value) in settings {
            setup = setup.set(name, value);
        }
        Self { service: setup.start().await, folder }
    }

    /// Submits a job of so many meshes; its JSON.
    pub async fn submitted(&self, meshes: usize) -> Value {
        self.service.submitted(&job_of(meshes)).await
    }

    /// The job once everything of it is copied. Time passes meanwhile.
    pub async fn secured(&self, job: &Value) -> Value {
        let id = text(&job["id"]);
        wait_for(&format!("job {id} to be secured"), async || {
            self.service.clock.advance(Duration::from_secs(1));
            Some(self.service.job(id).await).filter(|job| job["secured"] == true)
        })
        .await
    }

    /// Events of this type.
    pub async fn events(&self, job: &Value, kind: &str) -> Vec<Value> {
        let path = format!("/v1/jobs/{}/events?limit=200", text(&job["id"]));
        let events = self.service.get(&path).await.expect(200).json();
        let events = events["events"].as_array().expect("events").clone();
        events.into_iter().filter(|event| event["type"] == kind).collect()
    }
}

pub fn store_url(folder: &Path) -> String {
    format!("file://{}/files", folder.display())
}

/// A job that runs at once and makes so many meshes.
pub fn job_of(meshes: usize) -> Value {
    let mesh = |number| json!({"extension": ".stl", "structures": [format!("part{number}")]});
    json!({
        "inputFiles": {"cbct": {"extension": ".dcm", "downloadUrl": "https://store.example/a.dcm"}},
        "outputFiles": {"meshes": (0..meshes).map(mesh).collect::<Vec<_>>()},
    })
}

/// Where the copy of a mesh lies.
pub fn copy_path(folder: &Path, job: &Value, index: usize) -> PathBuf {
    let job = text(&job["id"]);
    folder.join("files").join(job).join(format!("{index}-meshes-{index}.stl"))
}

/// Fails unless record and file are what the Engine made.
pub fn expect_copies(engine: &Simulator, folder: &Path, job: &Value) {
    for (index, output) in job["outputs"].as_array().expect("outputs").iter().enumerate() {
        let content = engine.output_content(text(&job["engineJobId"]), "meshes", index);
        let content = content.expect("the Engine made it");
        assert_eq!(output["file"]["sha256"], content.sha256(), "{output}");
        assert_eq!(output["file"]["bytes"], content.size_bytes(), "{output}");
        let copy = fs::read(copy_path(folder, job, index)).expect("the copy is there");
        assert!(copy == content.bytes(), "copy {index} of {job} differs");
    }
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
