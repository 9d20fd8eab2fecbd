//! A job as the Engine accepted it: its request, its uploads, its result.
//!
//! Created by `submission` from the body of `POST /job`, changed by later calls. Invariant:
//! `result` is set exactly when the state is `Finished`, and never changes.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One accepted job.
#[derive(Clone, Debug)]
pub struct AcceptedJob {
    pub engine_job_id: String,
    /// The version segment of the path that it was submitted to.
    pub version: String,
    /// The exact body as received.
    pub body: Bytes,
    pub headers: HeaderMap,
    /// `finishWebhook` of the body.
    pub callback_url: Option<String>,
    pub accepted_at: Timestamp,
    pub state: JobState,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    /// Calls of its notify URLs that were answered 2xx.
    pub notified: usize,
    pub polls: usize,
    /// `success` of its result.
    pub success: Option<bool>,
    pub finished_at: Option<Timestamp>,
    /// The body of its callback, and of a poll.
    pub result: Option<Bytes>,
    /// Scheme, host and port by which the submitter reached the simulator.
    pub(super) origin: String,
    /// Why it failed, with `success: false`.
    pub(super) error: Option<String>,
    /// `output_size` when it finished: its files must not change afterwards.
    pub(super) output_size: u64,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// An input is not uploaded or not notified yet.
    Waiting,
    Processing,
    Finished,
}

/// A scan that a job needs.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its modality.
    pub name: String,
    pub extension: String,
    pub download_url: Option<String>,
    /// The last upload, or what was fetched from `download_url`.
    pub upload: Option<Upload>,
    pub notified: bool,
}

/// The bytes of one input.
#[derive(Clone, Debug)]
pub struct Upload {
    pub size_bytes: u64,
    pub sha256: String,
    /// Headers of the upload.
    pub headers: HeaderMap,
    /// The first 8 MiB of the bytes; length and digest are of the whole.
    pub content: Bytes,
}

/// An output file of a job.
#[derive(Clone, Debug)]
pub struct Output {
    pub kind: String,
    /// Position under its kind.
    pub index: usize,
    pub extension: String,
    pub structures: Vec<String>,
    pub upload_url: Option<String>,
    /// Set when the job finishes: `Available`, `Missing` or `Failed`.
    pub status: Option<OutputStatus>,
}

/// The status of an output, as results spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStatus {
    Available,
    Missing,
    Failed,
}

impl AcceptedJob {
    /// Whether it has its result.
    pub fn is_finished(&self) -> bool {
        self.state == JobState::Finished
    }

    /// Whether every input is available, so that the work can start.
    pub(super) fn has_its_inputs(&self) -> bool {
        self.inputs
            .iter()
            .all(|input| input.download_url.is_some() || (input.upload.is_some() && input.notified))
    }

    pub(super) fn input_mut(&mut self, name: &str) -> Option<&mut Input> {
        self.inputs.iter_mut().find(|input| input.name == name)
    }
}

impl Output {
    /// Its name in download links.
    pub(super) fn file_name(&self) -> String {
        format!("{}-{}{}", self.kind, self.index, self.extension)
    }

    /// Whether one of the names is its kind or one of its structures.
    pub(super) fn is_among(&self, names: &[String]) -> bool {
        names.iter().any(|name| *name == self.kind || self.structures.contains(name))
    }
}

/// The parsed body of `POST /job`.
pub(super) struct Order {
    pub(super) callback_url: Option<String>,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<Output>,
}

/// The fields of the body that matter here; others are allowed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobBody {
    input_files: BTreeMap<String, InputFile>,
    output_files: BTreeMap<String, OutputFiles>,
    finish_webhook: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputFile {
    extension: String,
    download_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OutputFiles {
    Many(Vec<OutputFile>),
    One(OutputFile),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputFile {
    extension: String,
    #[serde(default)]
    structures: Vec<String>,
    upload_url: Option<String>,
}

impl Order {
    /// Parses and validates a body; the error is a sentence for the caller.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let body: JobBody = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let order = Self {
            callback_url: body.finish_webhook,
            inputs: body.input_files.into_iter().map(input).collect(),
            outputs: body.output_files.into_iter().flat_map(outputs).collect(),
        };
        order.check()?;
        Ok(order)
    }

    fn check(&self) -> Result<(), String> {
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err("inputFiles and outputFiles each need an entry".into());
        }
        let extensions = self.inputs.iter().map(|input| &input.extension);
        let extensions = extensions.chain(self.outputs.iter().map(|output| &output.extension));
        if let Some(wrong) = extensions.into_iter().find(|extension| !extension.starts_with('.')) {
            return Err(format!("the extension {wrong:?} does not begin with a dot"));
        }
        let urls = self.inputs.iter().filter_map(|input| input.download_url.as_ref());
        let urls = urls.chain(self.outputs.iter().filter_map(|output| output.upload_url.as_ref()));
        let mut urls = urls.chain(self.callback_url.as_ref());
        match urls.find(|text| !is_web_address(text)) {
            Some(wrong) => Err(format!("{wrong:?} is not an http(s) address")),
            None => Ok(()),
        }
    }
}

fn is_web_address(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

fn input((name, file): (String, InputFile)) -> Input {
    Input {
        name,
        extension: file.extension,
        download_url: file.download_url,
        upload: None,
        notified: false,
    }
}

fn outputs((kind, files): (String, OutputFiles)) -> Vec<Output> {
    let files = match files {
        OutputFiles::Many(files) => files,
        OutputFiles::One(file) => vec![file],
    };
    let output = |(index, file): (usize, OutputFile)| Output {
        kind: kind.clone(),
        index,
        extension: file.extension,
        structures: file.structures,
        upload_url: file.upload_url,
        status: None,
    };
    files.into_iter().enumerate().map(output).collect()
}
