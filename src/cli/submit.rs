//! `finishline submit`: a job body from a file or standard input, submitted to a running service.
//!
//! The invariant: once the service has a job, its id is shown, however the rest goes.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    Failure, connection, jobs, or_interrupted, say,
    wait::{self, Waited},
};
use crate::domain::ids::JobId;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File with the Engine's job body; `-` reads standard input
    #[arg(value_name = "JOB.json")]
    body: PathBuf,
    /// The same key with the same body never makes two jobs
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<String>,
    /// Wait until the job is over
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 10m; unless given, as long as it takes
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

fn idempotency_key(text: &str) -> Result<String, String> {
    let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    match (1..=255).contains(&text.len()) && text.bytes().all(is_visible) {
        true => Ok(text.to_owned()),
        false => Err("expected 1 to 255 visible ASCII characters".into()),
    }
}

pub(super) async fn run(
    connection: &connection::Arguments,
    arguments: Arguments,
) -> Result<(), Failure> {
    let (client, mut screen) = (connection.client()?, connection.screen());
    // Read before signals are listened for: until then Ctrl-C ends a program that reads.
    let body = read(&arguments.body).map_err(Failure::usage)?;
    let key = arguments.idempotency_key.as_deref();
    let submitted = or_interrupted(async { Ok(client.submit_in_full(body, key).await?) }).await?;
    if submitted.status == 200 {
        say("this job was on record already: the key and the body are the same");
    }
    let id: JobId = submitted.value.id.parse().context("the service gave no id")?;
    let is_ended = wait::exit_of(&submitted.value.status).is_some();
    if !arguments.wait || is_ended {
        let exit = if arguments.wait { wait::exit_of(&submitted.value.status) } else { None };
        jobs::print_job(&mut screen, &submitted)?;
        screen.flush()?;
        return exit.map_or(Ok(()), jobs::ended);
    }
    say(&format!("job {id} is {}, waiting for its result", submitted.value.status));
    let awaiting = submitted.value.inputs.iter().filter(|input| input.state == "awaiting");
    let awaiting: Vec<&str> = awaiting.map(|input| input.name.as_str()).collect();
    if !awaiting.is_empty() {
        say(&format!("the Engine waits for the upload of: {}", awaiting.join(", ")));
    }
    let Waited { job, exit } = wait::wait(&client, id, arguments.timeout).await?;
    jobs::print_job(&mut screen, job.as_ref().unwrap_or(&submitted))?;
    screen.flush()?;
    jobs::ended(exit)
}

fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut body = Vec::new();
        io::stdin().lock().read_to_end(&mut body).context("standard input")?;
        return Ok(body);
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}
