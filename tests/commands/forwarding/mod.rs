//! `finishline forward`.

mod cursor;
mod outages;
mod passing;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    process::{Process, command},
    receiver::{Receiver, SECRET},
    support::{Service, ready_job, text},
};

/// The command that forwards to a receiver, signed.
fn forward_to(service: &Service, url: &str, more: &[&str]) -> Process {
    let mut args = vec!["forward", "--to", url];
    args.extend(more);
    let mut command = command(service, &args);
    command.env("FINISHLINE_FORWARD_SECRET", SECRET);
    Process::of(command)
}

fn forward(service: &Service, receiver: &Receiver, more: &[&str]) -> Process {
    forward_to(service, &receiver.url, more)
}

/// Submits and finishes so many jobs, one after another; their ids.
async fn finished(service: &Service, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let job = service.submitted(&ready_job()).await;
        service.finish(&job).await;
        ids.push(text(&job["id"]).to_owned());
    }
    ids
}

/// The jobs in the order in which they were taken for the first time.
fn in_order(receiver: &Receiver) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let taken = receiver.received().into_iter().filter(|one| one.status < 300);
    taken.map(|one| one.job_id).filter(|id| seen.insert(id.clone())).collect()
}

/// Every webhook id that each job was sent under.
fn webhook_ids(receiver: &Receiver) -> BTreeMap<String, BTreeSet<String>> {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in receiver.received() {
        ids.entry(one.job_id).or_default().insert(one.webhook_id);
    }
    ids
}

fn cursor_of(service: &Service) -> Value {
    let text = std::fs::read(service.folder().join("finishline-forward.cursor")).unwrap();
    serde_json::from_slice(&text).unwrap()
}
