//! `finishline backup FILE`: a copy of the database, while the service runs or not.
//!
//! When it exits with 0, the file is complete and on disk, and holds everything that was answered
//! 2xx before the command was started.

use std::{path::PathBuf, sync::Arc};

use anyhow::anyhow;
use bytesize::ByteSize;
use serde_json::json;

use super::{
    Failure, say,
    screen::{Form, Screen},
    stop_signal,
};
use crate::{
    app,
    clock::{Clock, Stopwatch},
    config::Config,
    store::{
        Store,
        sqlite::{OpenError, SqliteStore, backup},
    },
};

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
    let mut screen = Screen::new(Form::of_flag(arguments.json));
    if screen.is_json() {
        let figures = json!({
            "file": file.to_string(), "bytes": copied.bytes, "jobs": copied.jobs,
            "seconds": seconds,
        });
        screen.json(&figures)?;
    } else {
        let size = ByteSize::b(copied.bytes);
        screen.line(&format!("{file}: {size}, jobs: {}, {seconds:.1} s", copied.jobs))?;
    }
    Ok(screen.flush()?)
}

/// Moves the spooled callbacks into the database before it is copied or its key is replaced: they
/// were answered 2xx too. A running service does this itself, within a second of the database's
/// recovery.
pub(super) async fn settle_spool(config: &Config) -> anyhow::Result<()> {
    let clock = Clock::system();
    // Without a database there is nothing to move, and the copy reports the error.
    if !config.database.path.exists() {
        return Ok(());
    }
    let (store, writer) = match SqliteStore::open(&config.database.path, clock.now()).await {
        Ok(opened) => opened,
        Err(OpenError::InUse(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let store: Arc<dyn Store> = Arc::new(store);
    let intake = app::intake(config, &clock, store.clone()).await?;
    let taken = intake.drain().await;
    intake.close(std::future::pending()).await;
    store.close().await;
    writer.await?;
    let taken = taken?;
    if taken > 0 {
        say(&format!("finishline: took {taken} callbacks of the spool into the database first"));
    }
    Ok(())
}
