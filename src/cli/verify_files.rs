//! `finishline verify-files`: checks every copied file against its digest.
//!
//! It works with or without a running service, and only reads; the service replaces a damaged copy
//! when it is next requested.

use bytesize::ByteSize;
use serde_json::json;

use super::{
    Failure,
    report::{Mark, Report},
};
use crate::{
    blobs::{BlobError, Blobs, FileKey, Verified},
    config::Config,
    domain::mirror::StoredCopy,
    store::sqlite::copies::Copies,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> Result<(), Failure> {
    let mut report = Report::new(arguments.json);
    let Some(url) = &config.mirror.store else {
        return Err(Failure::usage(anyhow::anyhow!("mirror.store is empty: no files are copied")));
    };
    let unusable =
        |error: BlobError| Failure::usage(anyhow::anyhow!("mirror.store = \"{url}\": {error}"));
    let blobs = Blobs::open_existing(url).map_err(unusable)?;
    let verified = Verified::default();
    let (mut sound, mut bytes, mut wrong) = (0u64, 0u64, 0u64);
    if let Some(mut copies) = Copies::open(&config.database.path).await? {
        loop {
            let page = copies.next_page().await?;
            if page.is_empty() {
                break;
            }
            for copy in page {
                let Some(problem) = problem(&blobs, &verified, &copy).await else {
                    sound += 1;
                    bytes += copy.output.file.map_or(0, |file| file.bytes);
                    continue;
                };
                if copies.holds(&copy).await? {
                    wrong += 1;
                    let (job, output) = (copy.place.job_id, copy.output.name);
                    report.add(
                        Mark::Failed,
                        "file",
                        format!("job {job}, output {output}: {problem}"),
                    );
                }
            }
        }
    }
    if wrong == 0 {
        let size = ByteSize::b(bytes);
        report.add(Mark::Ok, "files", format!("{sound} verified, {size}: all as they were stored"));
    }
    report.finish(json!({ "verified": sound, "bytes": bytes, "wrong": wrong }))
}

/// What is wrong with a copy, if anything is.
async fn problem(blobs: &Blobs, verified: &Verified, copy: &StoredCopy) -> Option<String> {
    match verified.verify(blobs, copy).await {
        Ok(Some(_)) => None,
        Ok(None) => match blobs.size(&FileKey::of(copy)).await {
            Err(error) => Some(error.to_string()),
            Ok(_) => Some("its bytes are not those that were stored".to_owned()),
        },
        Err(error) => Some(error.to_string()),
    }
}
