//! Prints one job in full, or on one line.
//!
//! Links are shown without their query, which is a credential; `--json` prints them in full.

use super::list::took;
use crate::{
    api,
    cli::{
        Failure, Screen,
        table::{Cell, Kind, Table, facts, link, time},
    },
    client::Answer,
};

/// Prints everything about a job.
pub(in crate::cli) fn print_job(
    screen: &mut Screen,
    job: &Answer<api::JobView>,
) -> Result<(), Failure> {
    print_job_with(screen, job, None)
}

/// As [`print_job`], with the reason for the job's status.
pub(super) fn print_job_with(
    screen: &mut Screen,
    job: &Answer<api::JobView>,
    reason: Option<String>,
) -> Result<(), Failure> {
    if screen.is_json() {
        return Ok(screen.json_text(&job.json)?);
    }
    match &job.value {
        api::JobView::Full(job) => print_whole_job(screen, job, reason),
        api::JobView::Brief(_) => print_brief_job(screen, &job.value),
    }
}

/// Prints what a key without the scope `read` may see of a job.
fn print_brief_job(screen: &mut Screen, job: &api::JobView) -> Result<(), Failure> {
    let status = Some(Cell::status(job.status()));
    facts(screen, &[("job", Some(job.id().into())), ("status", status)])?;
    print_warnings(screen, job.warnings())?;
    print_inputs(screen, job.inputs())
}

fn print_warnings(screen: &mut Screen, warnings: &[String]) -> Result<(), Failure> {
    for warning in warnings {
        screen.line(&format!("warning: {warning}"))?;
    }
    Ok(())
}

fn print_whole_job(
    screen: &mut Screen,
    job: &api::Job,
    reason: Option<String>,
) -> Result<(), Failure> {
    let text = |value: &Option<String>| value.as_deref().map(Cell::from);
    let overdue = job.overdue.then(|| "past its due time without a result".into());
    facts(
        screen,
        &[
            ("job", Some(job.id.as_str().into())),
            ("status", Some(Cell::status(&job.status))),
            ("reason", reason.map(Cell::from)),
            ("overdue", overdue),
            ("reference", text(&job.reference)),
            ("origin", (job.origin != "submitted").then(|| job.origin.as_str().into())),
            ("end user", text(&job.end_user_id)),
            ("cloud package", text(&job.cloud_package)),
            ("engine job", text(&job.engine_job_id)),
            ("external job", text(&job.external_job_id)),
            ("created", Some(format!("{} UTC", time(job.created_at)).into())),
            ("submitted", job.submitted_at.map(|at| format!("{} UTC", time(at)).into())),
            ("finished", job.finished_at.map(|at| format!("{} UTC", time(at)).into())),
            ("took", took(job).map(Cell::from)),
            ("secured", job.secured.map(|is_secured| is_secured.to_string().into())),
            ("deliveries", Some(job.deliveries.to_string().into())),
        ],
    )?;
    print_warnings(screen, &job.warnings)?;
    print_inputs(screen, &job.inputs)?;
    print_outputs(screen, &job.outputs)
}

fn print_inputs(screen: &mut Screen, inputs: &[api::Input]) -> Result<(), Failure> {
    if inputs.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let columns = [
        ("INPUT", Kind::Whole),
        ("EXTENSION", Kind::Whole),
        ("STATE", Kind::Whole),
        ("UPLOAD", Kind::Cut),
    ];
    let rows = inputs.iter().map(|input| {
        vec![
            input.name.as_str().into(),
            input.extension.as_str().into(),
            input.state.as_str().into(),
            input.upload_url.as_deref().map(link).into(),
        ]
    });
    Ok(Table::new(&columns).print(screen, &rows.collect::<Vec<_>>())?)
}

fn print_outputs(screen: &mut Screen, outputs: &[api::Output]) -> Result<(), Failure> {
    if outputs.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let columns = [
        ("OUTPUT", Kind::Whole),
        ("EXTENSION", Kind::Whole),
        ("STATUS", Kind::Whole),
        ("STRUCTURES", Kind::Cut),
        ("LINK", Kind::Cut),
    ];
    let rows = outputs.iter().map(|output| {
        vec![
            output.name.as_str().into(),
            output.extension.as_ref().into(),
            output.status.as_deref().map_or_else(|| "-".into(), Cell::status),
            output.structures.join(", ").into(),
            output.url.as_deref().map(link).into(),
        ]
    });
    Ok(Table::new(&columns).print(screen, &rows.collect::<Vec<_>>())?)
}

/// Prints a job's id and status.
pub(in crate::cli) fn print_status(
    screen: &mut Screen,
    job: &Answer<api::JobView>,
) -> Result<(), Failure> {
    if screen.is_json() {
        return Ok(screen.json_text(&job.json)?);
    }
    Ok(facts(screen, &[(job.value.id(), Some(Cell::status(job.value.status())))])?)
}
