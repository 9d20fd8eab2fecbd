//! `finishline forward`: forwards results to an address that only this machine can reach.
//!
//! It follows the service's events, so it needs no port open to the internet. Invariants: a result
//! counts as delivered only once the cursor with its number is on disk; results are sent one at a
//! time, in the order in which their jobs finished.

mod cursor;
mod start;
mod target;

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use serde::Serialize;
use standardwebhooks::Webhook;
use url::Url;

use self::{
    cursor::Cursor,
    start::Start,
    target::{Message, Outcome, Target},
};
use super::{
    Failure, Screen,
    connection::{self, http_url, until_answered},
    following::{Follow, Following},
    or_interrupted, say,
    table::time,
};
use crate::{
    api,
    client::{Client, ClientError, Followed},
    clock::Clock,
    config::variables,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where results are posted, such as http://localhost:3000/hook
    #[arg(long, value_name = "URL", value_parser = http_url)]
    to: Url,
    /// Signs each delivery: whsec_ + base64; better FINISHLINE_FORWARD_SECRET, which other users of
    /// this machine cannot see
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// Keeps the place of the last result that was taken
    #[arg(long, value_name = "FILE", default_value = "finishline-forward.cursor")]
    cursor: PathBuf,
    /// Begin after the event with this number, or with what happened at this time (RFC 3339),
    /// whatever the cursor says
    #[arg(long, value_name = "NUMBER|TIME", value_parser = start::since, conflicts_with = "last")]
    since: Option<Start>,
    /// Begin with the last so many finished jobs, whatever the cursor says
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: Option<u32>,
    /// Skip a result that was not taken after so many tries; unless given, try for ever
    #[arg(long, value_name = "TRIES", value_parser = clap::value_parser!(u32).range(1..))]
    give_up: Option<u32>,
    /// How long a silence of the service ends a connection
    #[arg(long, hide = true, default_value = "45s", value_parser = humantime::parse_duration)]
    silence: Duration,
}

pub(super) async fn run(
    connection: &connection::Arguments,
    arguments: Arguments,
) -> Result<(), Failure> {
    let client = connection.client()?;
    let webhook = signer(arguments.secret)?;
    let target = Target::new(arguments.to, webhook, arguments.give_up)?;
    let start = arguments.since.or(arguments.last.map(Start::Last));
    let (mut cursor, found) = Cursor::open(arguments.cursor, client.base())?;
    let silence = arguments.silence;
    or_interrupted(async {
        let earlier = if start.is_none() { found.after()? } else { None };
        let after = match earlier {
            Some(after) => after,
            None => start::find(&client, start.unwrap_or(Start::Now), silence).await?,
        };
        // Write the cursor before waiting: from here on no event is missed.
        cursor.write(after)?;
        say(&format!("forwarding to {}, from event {after} on", target.shown()));
        let follow = Follow { job: None, after: Some(after), silence, is_patient: true };
        let following = Following::new(client.clone(), follow);
        let screen = connection.screen();
        Forwarder { client, target, cursor, screen }.run(following).await
    })
    .await
}

/// The signer, if a flag or a variable gives a secret.
fn signer(secret: Option<String>) -> Result<Option<Webhook>, Failure> {
    if let Some(secret) = secret {
        return webhook(&secret, "--secret").map(Some);
    }
    let name = variables::FORWARD_SECRET;
    let secret = variables::of_client(name).map_err(|line| Failure::usage(anyhow!("{line}")))?;
    secret.map(|secret| webhook(&secret, name)).transpose()
}

fn webhook(secret: &str, origin: &str) -> Result<Webhook, Failure> {
    // The library's error would show the secret.
    let wrong = || Failure::usage(anyhow!("{origin}: expected whsec_ and base64 after it"));
    let key = secret.strip_prefix("whsec_").filter(|key| !key.is_empty()).ok_or_else(wrong)?;
    Webhook::new(key).map_err(|_| wrong())
}

struct Forwarder {
    client: Client,
    target: Target,
    cursor: Cursor,
    screen: Screen,
}

/// The outcome for one result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    seq: i64,
    job_id: &'a str,
    webhook_id: &'a str,
    /// `delivered` or `skipped`.
    outcome: &'static str,
    attempts: u32,
    /// HTTP status of the last answer.
    status: Option<u16>,
    /// Why it was skipped.
    reason: Option<&'a str>,
}

impl Forwarder {
    async fn run(mut self, mut following: Following) -> Result<(), Failure> {
        loop {
            match following.next().await? {
                Followed::Event { event, .. } if event.kind == "job.finished" => {
                    self.pass_on(&event).await?;
                }
                Followed::Event { .. } => {}
                // Other events need not be read again.
                Followed::CaughtUp(seq) => self.cursor.write(seq)?,
            }
        }
    }

    async fn pass_on(&mut self, event: &api::Event) -> Result<(), Failure> {
        let webhook_id = webhook_id(event);
        let outcome = match self.result(&event.job_id).await? {
            Ok(body) => {
                let message = Message { webhook_id: &webhook_id, job_id: &event.job_id, body };
                self.target.deliver(&message).await
            }
            Err(reason) => Outcome::skipped(reason),
        };
        self.cursor.write(event.seq)?;
        self.report(event, &webhook_id, &outcome)
    }

    /// The result's bytes, or why there are none to forward.
    async fn result(&self, job_id: &str) -> Result<Result<bytes::Bytes, &'static str>, Failure> {
        let fetched = until_answered(async || match self.client.result(job_id).await {
            Err(ClientError::Problem(problem)) if problem.status == 410 => {
                Ok(Err("the job has been erased"))
            }
            // The database was replaced by an older one in the meantime.
            Err(ClientError::Problem(problem)) if problem.status == 404 => {
                Ok(Err("the job is not on record"))
            }
            fetched => fetched.map(|result| result.ok_or("the job has no result")),
        });
        fetched.await
    }

    fn report(
        &mut self,
        event: &api::Event,
        webhook_id: &str,
        outcome: &Outcome,
    ) -> Result<(), Failure> {
        let Outcome { attempts, status, skipped } = outcome;
        let word = if skipped.is_some() { "skipped" } else { "delivered" };
        if self.screen.is_json() {
            let report = Report {
                seq: event.seq,
                job_id: &event.job_id,
                webhook_id,
                outcome: word,
                attempts: *attempts,
                status: *status,
                reason: skipped.as_deref(),
            };
            self.screen.json(&report)?;
        } else {
            let detail = match (skipped, status) {
                (Some(reason), _) => reason.clone(),
                (None, Some(status)) if *attempts > 1 => format!("{status} at try {attempts}"),
                (None, status) => status.unwrap_or_default().to_string(),
            };
            let at = time(Clock::system().now());
            let job = &event.job_id;
            self.screen.line(&format!("{at}  {:>6}  {word:9}  job {job}  {detail}", event.seq))?;
        }
        Ok(self.screen.flush()?)
    }
}

/// The same for every delivery of a result, by any process. It begins as the relay's id does, so
/// that a receiver reads the job from both in the same way.
fn webhook_id(event: &api::Event) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        delivery_id: String,
    }
    let data = serde_json::from_str(event.data.get());
    let delivery = data.map_or_else(|_| event.seq.to_string(), |data: Data| data.delivery_id);
    // It becomes a header value, and the service could send any text.
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || *character == '-';
    let plain = |id: &str| -> String { id.chars().filter(is_plain).collect() };
    format!("msg_{}_{}", plain(&event.job_id), plain(&delivery))
}
