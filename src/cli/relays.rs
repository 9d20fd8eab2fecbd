//! `finishline relays`: lists deliveries of results to targets, and sends them again.
//!
//! A bulk resend reports how many it affects; a secret is shown only by the command for it.

use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{
    Failure, Screen,
    connection::{self, job_id},
    or_interrupted,
    pages::{Extent, Pages},
    table::{Cell, Kind, Table, facts, time},
};
use crate::{
    api,
    client::{Answer, Client},
    config::RelayConfig,
    domain::{ids::JobId, relay::RelayState},
};
use anyhow::anyhow;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List orders to pass a result on, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        extent: Extent,
    },
    /// Show an order with every attempt
    Show {
        #[arg(value_name = "ID")]
        id: Uuid,
    },
    /// Order it again: one, or all that match
    #[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "state", "target", "job"])))]
    Resend {
        #[arg(value_name = "ID", conflicts_with_all = ["state", "target", "job", "dry_run"])]
        id: Option<Uuid>,
        #[command(flatten)]
        filter: Filter,
        /// Only count
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the secret that signs results for a job's own finishWebhook at this host
    ///
    /// It is made from relay.secret of the settings, so no service need run.
    Secret {
        /// Such as app.example.com; a port or a path does not count
        #[arg(value_name = "HOST", value_parser = host)]
        host: String,
    },
}

/// The host as the relay spells it, from a host, a host and a port, or a full address.
fn host(text: &str) -> Result<String, &'static str> {
    let address = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    let host = url.as_ref().and_then(Url::host_str).filter(|host| *host != ".");
    host.map(str::to_owned).ok_or("expected a host such as app.example.com")
}

/// Prints the secret of a job's own target.
pub(super) fn show_secret(
    connection: &connection::Arguments,
    host: &str,
    config: &RelayConfig,
) -> Result<(), Failure> {
    let empty = || {
        Failure::usage(anyhow!(
            "relay.secret is empty, so results go unsigned to a job's own finishWebhook: set one"
        ))
    };
    let secret = config.secret_of(host).ok_or_else(empty)?;
    let mut screen = connection.screen();
    if screen.is_json() {
        screen.json(&json!({ "host": host, "secret": secret.expose() }))?;
    } else {
        screen.line(secret.expose())?;
    }
    Ok(screen.flush()?)
}

/// Parses a state by name; shell completions list the names too.
fn state() -> impl TypedValueParser<Value = RelayState> {
    PossibleValuesParser::new(RelayState::ALL.map(RelayState::as_str))
        .map(|text| text.parse().expect("it is one of those that are possible"))
}

#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Only in this state
    #[arg(long, value_parser = state())]
    state: Option<RelayState>,
    /// Name of a target
    #[arg(long)]
    target: Option<String>,
    /// Job id
    #[arg(long, value_name = "ID", value_parser = job_id)]
    job: Option<JobId>,
}

pub(super) async fn run(
    connection: &connection::Arguments,
    command: Command,
) -> Result<(), Failure> {
    let (client, mut screen) = (connection.client()?, connection.screen());
    or_interrupted(run_command(&client, &mut screen, command)).await?;
    Ok(screen.flush()?)
}

async fn run_command(
    client: &Client,
    screen: &mut Screen,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::List { filter, extent } => {
            let pages = Pages::new(client, "/v1/relays", filter.query(), extent);
            pages.print::<api::Relays>(screen, (table(), row)).await
        }
        Command::Show { id } => show(screen, &client.get(&format!("/v1/relays/{id}"), &[]).await?),
        Command::Resend { id: Some(id), .. } => {
            let path = format!("/v1/relays/{id}/resend");
            let answer = client.post::<api::RelayView>(&path, &json!({})).await?;
            Ok(screen.done(&answer.json, &format!("ordered again: {}", answer.value.id()))?)
        }
        Command::Resend { id: None, filter, dry_run } => {
            let mut order = filter.order();
            order.insert("dryRun".to_owned(), dry_run.into());
            let answer = client.post::<api::Resent>("/v1/relays/resend", &order).await?;
            let what = if dry_run { "would be ordered again" } else { "ordered again" };
            Ok(screen.done(&answer.json, &format!("{what}: {}", answer.value.relays))?)
        }
        // Answered from the settings, without the service.
        Command::Secret { .. } => Ok(()),
    }
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(self.target.clone().map(|target| ("target", target)));
        query.extend(self.job.map(|job| ("jobId", job.to_string())));
        query
    }

    /// The filter as the body of a bulk resend.
    fn order(&self) -> serde_json::Map<String, Value> {
        let fields = self.query().into_iter();
        fields.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

fn table() -> Table {
    Table::new(&[
        ("ID", Kind::Whole),
        ("STATE", Kind::Whole),
        ("TRIES", Kind::Number),
        ("LAST", Kind::Number),
        ("TARGET", Kind::Cut),
        ("NEXT TRY (UTC)", Kind::Whole),
        ("JOB", Kind::Whole),
    ])
}

fn row(relay: &api::Relay) -> Vec<Cell> {
    vec![
        relay.id.as_str().into(),
        Cell::status(&relay.state),
        relay.attempts.to_string().into(),
        relay.last_status.into(),
        relay.target.as_str().into(),
        relay.next_attempt_at.map(time).into(),
        relay.job_id.as_str().into(),
    ]
}

fn show(screen: &mut Screen, answer: &Answer<api::RelayDetail>) -> Result<(), Failure> {
    if screen.is_json() {
        return Ok(screen.json_text(&answer.json)?);
    }
    let api::RelayDetail { relay, attempt_log } = &answer.value;
    facts(
        screen,
        &[
            ("relay", Some(relay.id.as_str().into())),
            ("job", Some(relay.job_id.as_str().into())),
            ("target", Some(relay.target.as_str().into())),
            ("state", Some(Cell::status(&relay.state))),
            ("webhook-id", Some(relay.webhook_id.as_str().into())),
            ("next try", relay.next_attempt_at.map(|at| format!("{} UTC", time(at)).into())),
        ],
    )?;
    screen.line("")?;
    let mut table = Table::new(&[
        ("TRY", Kind::Number),
        ("AT (UTC)", Kind::Whole),
        ("MILLIS", Kind::Number),
        ("STATUS", Kind::Number),
        ("ANSWER", Kind::Cut),
    ]);
    let rows = attempt_log.iter().map(|attempt| {
        vec![
            attempt.number.to_string().into(),
            time(attempt.at).into(),
            attempt.millis.to_string().into(),
            attempt.status.into(),
            attempt.error.as_ref().unwrap_or(&attempt.answer).as_str().into(),
        ]
    });
    Ok(table.print(screen, &rows.collect::<Vec<_>>())?)
}
