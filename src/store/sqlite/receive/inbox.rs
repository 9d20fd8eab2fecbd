//! Finds the job of an inbox arrival: the submitted job with the Engine's id in its body, or a job
//! of its own.
//!
//! Called within the writer's transaction. Nothing is guessed: an id that several submitted jobs
//! share matches none of them.

use std::{borrow::Cow, collections::HashMap};

use sqlx::Row;

use super::super::pipeline::Pipeline;
use crate::{
    domain::{ids::JobId, result::Reading},
    store::{Addressee, Arrival},
};

/// The arrivals with their final addressee: a result that came to the inbox but belongs to a
/// submitted job is addressed to that job.
pub(in super::super) async fn addressed<'a>(
    pipeline: &mut Pipeline<'_>,
    arrivals: &[&'a Arrival],
) -> sqlx::Result<Vec<Cow<'a, Arrival>>> {
    let ids: Vec<&str> = arrivals.iter().filter_map(|arrival| engine_job_id(arrival)).collect();
    if ids.is_empty() {
        return Ok(arrivals.iter().map(|arrival| Cow::Borrowed(*arrival)).collect());
    }
    let query = pipeline.next_of_any_length().await?;
    query.push(
        "select engine_job_id, min(id) as id from jobs
         where origin <> 'inbox' and engine_job_id in (",
    );
    let mut list = query.separated(", ");
    for id in &ids {
        list.push_bind((*id).to_owned());
    }
    query.push(") group by engine_job_id having count(*) = 1;");
    let [rows] = pipeline.rows().await?;
    let mut jobs: HashMap<String, JobId> = HashMap::new();
    for row in &rows {
        jobs.insert(row.try_get("engine_job_id")?, JobId(row.try_get("id")?));
    }
    let addressed = |arrival: &&'a Arrival| match engine_job_id(arrival).and_then(|id| jobs.get(id))
    {
        None => Cow::Borrowed(*arrival),
        Some(job) => Cow::Owned(Arrival { addressee: Addressee::Job(*job), ..(**arrival).clone() }),
    };
    Ok(arrivals.iter().map(addressed).collect())
}

/// The Engine's id in a result that came to the inbox.
fn engine_job_id(arrival: &Arrival) -> Option<&str> {
    match (arrival.addressee, &arrival.reading) {
        (Addressee::Inbox(_), Reading::Result(result)) => result.engine_job_id.as_deref(),
        _ => None,
    }
}
