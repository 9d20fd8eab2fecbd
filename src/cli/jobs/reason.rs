//! Why a job is `rejected`, `unsent` or `unconfirmed`: the reason in its timeline, and the Engine's
//! answer.

use serde::Deserialize;

use crate::{
    api,
    cli::Failure,
    client::{Client, ClientError},
    domain::{bounds::MAX_LIMIT, job::JobStatus},
};

/// Most characters of the Engine's answer to show; all of it is in the job's `engineResponse`.
const MAX_WORDS: usize = 500;

/// The data of an event of these statuses.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    reason: Option<String>,
    engine_status: Option<u16>,
    detail: Option<String>,
}

/// The reason on one line; `None` for a status that needs none, or if the key may not read the job.
///
/// # Errors
/// The service cannot be reached, or answers with an error that is not a refusal.
pub(super) async fn find(client: &Client, job: &api::JobView) -> Result<Option<String>, Failure> {
    let Some(job) = job.full() else { return Ok(None) };
    let outlook = job.status.parse().ok().and_then(JobStatus::outlook);
    let Some(outlook) = outlook else { return Ok(None) };
    let told = match last_told(client, job).await {
        Ok(told) => told,
        Err(error) if error.is_refusal() => Told::default(),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(line(job, told, outlook)))
}

fn line(job: &api::Job, told: Told, outlook: &str) -> String {
    let mut line = told.reason.unwrap_or_else(|| "not on record".to_owned());
    if let Some(status) = told.engine_status {
        line.push_str(&format!(", the Engine answered {status}"));
    }
    if let Some(response) = job.engine_response.as_ref().filter(|text| text.get() != "null") {
        let words: String = response.get().chars().take(MAX_WORDS).collect();
        let cut = if words.len() < response.get().len() { "…" } else { "" };
        line.push_str(&format!(" and said: {words}{cut}"));
    }
    let detail = told.detail.unwrap_or_default();
    let outlook = if detail.contains(outlook) { "" } else { outlook };
    for part in [detail.as_str(), outlook].into_iter().filter(|part| !part.is_empty()) {
        line.push_str(&format!("; {part}"));
    }
    line
}

/// The data of the last event of the job's status.
async fn last_told(client: &Client, job: &api::Job) -> Result<Told, ClientError> {
    let (path, kind) = (format!("/v1/jobs/{}/events", job.id), format!("job.{}", job.status));
    let (mut told, mut cursor) = (Told::default(), None::<String>);
    loop {
        let mut query = vec![("limit", MAX_LIMIT.to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = client.get::<api::Events>(&path, &query).await?.value;
        if let Some(event) = page.events.iter().rfind(|event| event.kind == kind) {
            told = serde_json::from_str(event.data.get()).unwrap_or_default();
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(told),
        }
    }
}
