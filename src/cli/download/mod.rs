//! Downloads a job's outputs into a folder: `--download DIR`, `jobs download ID DIR`.
//!
//! Invariants: a file has its final name only when it is complete; an existing file that differs is
//! kept unless `--force` is given; nothing is written outside the folder.

mod fetch;
mod part;
mod report;

use std::{cell::RefCell, path::PathBuf};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

use self::fetch::Fetch;
pub(super) use self::report::{exit_of, print};
use super::{
    Failure,
    progress::{Progress, shell_os_word},
};
use crate::{
    api,
    client::Client,
    domain::{
        file_name::{self, Content, Owner},
        ids::JobId,
        names::Names,
    },
    private_files,
};

/// Parallel downloads: meshes are small, so most of the time goes into requests.
const AT_A_TIME: usize = 4;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// Download the outputs into this folder once the job is over
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    download: Option<PathBuf>,
    /// Replace files in DIR that differ
    #[arg(long, requires = "download")]
    force: bool,
}

/// What to do with an existing file that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Keep,
    Replace,
}

impl Existing {
    pub(super) fn of_flag(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

impl Arguments {
    pub(super) fn folder(&self) -> anyhow::Result<Option<Folder>> {
        let folder = |path: &PathBuf| Folder::new(path.clone(), Existing::of_flag(self.force));
        self.download.as_ref().map(folder).transpose()
    }
}

/// The folder for outputs.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    existing: Existing,
}

/// One output and the outcome of its download.
#[derive(Debug)]
pub(super) struct Downloaded {
    output: String,
    status: Option<String>,
    structures: Names,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Written(Copy),
    /// The same bytes were there already.
    Unchanged(Copy),
    /// There is no file: the output is `Missing` or `Failed`, or the Engine wrote it elsewhere.
    Absent,
    /// Another file has its name and was kept, so this output was not downloaded.
    Kept(String),
    /// The reason for the failure.
    Failed(String),
}

/// A complete file in the folder.
#[derive(Debug)]
struct Copy {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

impl Folder {
    /// The folder, created if missing.
    pub(super) fn new(path: PathBuf, existing: Existing) -> anyhow::Result<Self> {
        private_files::create_folder(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, existing })
    }

    /// The command-line flags that name this folder again.
    pub(super) fn flags(&self) -> String {
        format!("--download {}", self.words())
    }

    fn words(&self) -> String {
        let path = shell_os_word(self.path.as_os_str());
        match self.existing {
            Existing::Keep => path,
            Existing::Replace => format!("{path} --force"),
        }
    }

    /// Downloads all outputs of a finished job that have a link or a copy.
    pub(super) async fn fetch_all(
        &self,
        client: &Client,
        job: &api::Job,
        progress: &Progress,
    ) -> Result<Vec<Downloaded>, Failure> {
        let id: JobId = job.id.parse()?;
        progress.set_resume(format!("finishline jobs download {id} {}", self.words()));
        let there = job.outputs.iter().filter(|output| is_there(output)).count();
        let bar = progress.downloads();
        let (refreshed, done) = (OnceCell::new(), RefCell::new(0));
        bar.set_message(format!("0 of {there} files"));
        let fetches = job.outputs.iter().zip(file_names(id, job)).map(|(output, name)| {
            let (bar, refreshed, done) = (&bar, &refreshed, &done);
            async move {
                let outcome = match is_there(output) {
                    true => {
                        let place = self.path.join(name);
                        let fetch = Fetch { client, id, output, folder: self, progress, bar };
                        let outcome = fetch.run(place, refreshed).await;
                        *done.borrow_mut() += 1;
                        bar.set_message(format!("{} of {there} files", done.borrow()));
                        outcome
                    }
                    false => Outcome::Absent,
                };
                Downloaded::new(output, outcome)
            }
        });
        let downloaded = futures_util::stream::iter(fetches).buffered(AT_A_TIME).collect().await;
        bar.finish_and_clear();
        Ok(downloaded)
    }
}

impl Downloaded {
    fn new(output: &api::Output, outcome: Outcome) -> Self {
        Self {
            output: output.name.clone(),
            status: output.status.clone(),
            structures: output.structures.clone(),
            outcome,
        }
    }
}

/// A file name for each output, the same as the service uses; names of outputs that exist are
/// distinct, also on file systems that ignore case.
fn file_names(id: JobId, job: &api::Job) -> Vec<String> {
    let owner = Owner { job_id: id, reference: job.reference.as_deref() };
    let name = |output: &api::Output| {
        let (name, extension) = (output.name.as_str(), output.extension.as_deref());
        file_name::of_content(owner, Content { name, extension, structures: &output.structures })
    };
    let there = job.outputs.iter().filter(|output| is_there(output));
    let mut distinct = file_name::distinct(there.map(name).collect()).into_iter();
    let names = job.outputs.iter().map(|output| match is_there(output) {
        true => distinct.next().unwrap_or_default(),
        false => String::new(),
    });
    names.collect()
}

/// Whether the output can be fetched: the Engine gave a link, or the service has a copy.
fn is_there(output: &api::Output) -> bool {
    output.url.is_some() || output.file.is_some()
}
