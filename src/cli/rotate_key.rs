//! `finishline rotate-key`: a new key for callback addresses, while the service is stopped.
//!
//! When it exits with 0, the new key is on disk, and callbacks of jobs that were submitted before
//! are still accepted.

use serde_json::json;

use super::{
    Failure,
    backup::settle_spool,
    screen::{Form, Screen, say},
};
use crate::{clock::Clock, config::Config, store::sqlite::keys};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> Result<(), Failure> {
    let path = &config.database.path;
    // Spooled callbacks are verified with the keys that they were received under.
    settle_spool(&config).await?;
    let rotated = keys::rotate(path, Clock::system().now()).await?;
    let number = rotated.number.0;
    let retired: Vec<i64> = rotated.retired.iter().map(|key| key.0).collect();
    let mut screen = Screen::new(Form::of_flag(arguments.json));
    if screen.is_json() {
        screen.json(&json!({ "key": number, "earlierKeys": retired }))?;
        return Ok(screen.flush()?);
    }
    let earlier = match retired.len() {
        0 => "no job needs an earlier one".to_owned(),
        1 => "1 earlier key is honoured for jobs that were submitted under it".to_owned(),
        more => format!("{more} earlier keys are honoured for jobs that were submitted under them"),
    };
    screen.line_at_once(&format!("key {number} signs from the next start on; {earlier}"))?;
    say("finishline: make a backup now: those made before do not have the new key");
    Ok(())
}
