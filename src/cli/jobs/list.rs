//! `finishline jobs list`: jobs by filter, newest first.
//!
//! Filters are checked here, so a mistake ends with the exit code for wrong usage.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    api,
    cli::{
        Failure, Screen,
        pages::{Extent, Pages},
        table::{Cell, Kind, Table, time},
    },
    client::Client,
    domain::job::JobStatus,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only with this status; several, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = status())]
    status: Vec<JobStatus>,
    /// Only of this end user
    #[arg(long, value_name = "END_USER_ID")]
    end_user: Option<String>,
    /// Only of this licence
    #[arg(long)]
    cloud_package: Option<String>,
    /// Only with this label of your own
    #[arg(long)]
    reference: Option<String>,
    #[arg(long)]
    engine_job_id: Option<String>,
    #[arg(long)]
    external_job_id: Option<String>,
    /// Only jobs past their due time without a result
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    overdue: Option<bool>,
    /// Only jobs in flight whose callback address is no longer the public URL
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    stale_callback: Option<bool>,
    /// Only created at this time (RFC 3339) or later
    #[arg(long, value_name = "TIME", value_parser = instant)]
    created_after: Option<String>,
    /// Only created before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    created_before: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

/// Parses a status by name; shell completions list the names too.
fn status() -> impl TypedValueParser<Value = JobStatus> {
    PossibleValuesParser::new(JobStatus::ALL.map(JobStatus::as_str))
        .map(|text| text.parse().expect("it is one of those that are possible"))
}

fn instant(text: &str) -> Result<String, &'static str> {
    let known = crate::domain::time::parse(text);
    known.map(|_| text.to_owned()).ok_or("expected a time such as 2026-11-23T20:15:00Z")
}

impl Arguments {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query: Vec<_> =
            self.status.iter().map(|status| ("status", status.to_string())).collect();
        let texts = [
            ("endUserId", &self.end_user),
            ("cloudPackage", &self.cloud_package),
            ("reference", &self.reference),
            ("engineJobId", &self.engine_job_id),
            ("externalJobId", &self.external_job_id),
            ("createdAfter", &self.created_after),
            ("createdBefore", &self.created_before),
        ];
        query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
        let flags = [("overdue", self.overdue), ("staleCallback", self.stale_callback)];
        query.extend(flags.into_iter().filter_map(|(name, flag)| Some((name, flag?.to_string()))));
        query
    }
}

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let pages = Pages::new(client, "/v1/jobs", arguments.query(), arguments.extent);
    pages.print::<api::Jobs>(screen, (table(), row)).await
}

fn table() -> Table {
    Table::new(&[
        ("ID", Kind::Whole),
        ("STATUS", Kind::Whole),
        ("CREATED (UTC)", Kind::Whole),
        ("REFERENCE", Kind::Cut),
        ("END USER", Kind::Cut),
        ("TOOK", Kind::Number),
    ])
}

fn row(job: &api::Job) -> Vec<Cell> {
    vec![
        job.id.as_str().into(),
        if job.overdue {
            format!("{}, overdue", job.status).into()
        } else {
            Cell::status(&job.status)
        },
        time(job.created_at).into(),
        job.reference.as_ref().into(),
        job.end_user_id.as_ref().into(),
        took(job).into(),
    ]
}

/// The time from the submission to the result.
pub(super) fn took(job: &api::Job) -> Option<String> {
    let seconds = job.finished_at?.duration_since(job.submitted_at?).as_secs().max(0);
    Some(match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    })
}
