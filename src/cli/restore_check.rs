//! `finishline restore-check FILE`: checks whether a backup can be restored.
//!
//! It needs no settings and no service. The file is not changed, and nothing is left beside it.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::{
    Failure,
    report::{Mark, Report},
};
use crate::store::sqlite::{
    inspect::{Inspection, inspect},
    schema_version,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The backup
    file: PathBuf,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut report = Report::new(arguments.json);
    let figures = match inspect(&arguments.file).await {
        Ok(inspection) => {
            tell(&mut report, &inspection);
            figures(&inspection)
        }
        Err(error) => {
            report.add(Mark::Failed, "file", error.to_string());
            json!({})
        }
    };
    report.finish(figures)
}

fn tell(report: &mut Report, inspection: &Inspection) {
    let size = ByteSize::b(inspection.bytes);
    report.add(Mark::Ok, "file", format!("{size}, every page and every reference is sound"));
    let (found, ours) = (inspection.schema, schema_version());
    report.add(
        Mark::Ok,
        "schema",
        match found == ours {
            true => format!("{found}, as this finishline writes it"),
            false => format!("{found}: it will be migrated to {ours} by the first start on it"),
        },
    );
    match inspection.has_signing_key {
        true => report.add(Mark::Ok, "signing key", "there: jobs in flight can call back"),
        false => report.add(
            Mark::Failed,
            "signing key",
            "missing: no job in flight could call back, use another backup",
        ),
    }
    let total: u64 = inspection.jobs.iter().map(|(_, jobs)| jobs).sum();
    let by_status: Vec<_> =
        inspection.jobs.iter().map(|(status, jobs)| format!("{jobs} {status}")).collect();
    let by_status = if total == 0 { String::new() } else { format!(" ({})", by_status.join(", ")) };
    report.add(Mark::Ok, "jobs", format!("{total}{by_status}"));
    tell_deliveries(report, inspection);
}

fn tell_deliveries(report: &mut Report, inspection: &Inspection) {
    let (count, size) = (inspection.deliveries, ByteSize::b(inspection.body_bytes));
    if inspection.wrong_bodies == 0 {
        let text = format!("{count}, {size}; every body is what its digest says");
        return report.add(Mark::Ok, "deliveries", text);
    }
    let named: Vec<_> = inspection.first_wrong_bodies.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} of {count} have a body that is not what its digest says, use another backup: {}",
        inspection.wrong_bodies,
        named.join(", ")
    );
    report.add(Mark::Failed, "deliveries", text);
}

fn figures(inspection: &Inspection) -> Value {
    let jobs: serde_json::Map<_, _> =
        inspection.jobs.iter().map(|(status, jobs)| (status.clone(), json!(jobs))).collect();
    json!({
        "bytes": inspection.bytes,
        "schema": inspection.schema,
        "jobs": jobs,
        "deliveries": inspection.deliveries,
        "bodyBytes": inspection.body_bytes,
        "wrongBodies": inspection.wrong_bodies,
    })
}
