//! Records the Engine's answers to submissions, many at a time.
//!
//! Called by the writer within its transaction. Invariant: a job that has finished meanwhile stays
//! finished.

use jiff::Timestamp;
use serde_json::{json, value::RawValue};

use super::{adopted, pipeline::Pipeline, read, rows};
use crate::{
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
        job::{Job, JobStatus},
        time::from_millis,
    },
    store::{EngineAnswer, InputLinks, Lookup, ResultOrders},
};

/// The Engine's answer to the submission of a job.
pub(super) struct RecordAnswer {
    pub id: JobId,
    pub answer: EngineAnswer,
    pub now: Timestamp,
}

/// Records answers; returns the job of each after the change, in the same order.
pub(super) async fn record(
    pipeline: &mut Pipeline<'_>,
    answers: &[&RecordAnswer],
    orders: &ResultOrders,
) -> sqlx::Result<Vec<Lookup<Job>>> {
    let ids: Vec<JobId> = answers.iter().map(|one| one.id).collect();
    let mut jobs = read::jobs_of(pipeline, &ids).await?;
    let (mut events, mut uploads) = (Vec::new(), Vec::new());
    for one in answers {
        let Some((seq, job)) = jobs.get_mut(&one.id) else { continue };
        // For a finished job, an answer that would leave it open is no event.
        let is_accepted = matches!(one.answer, EngineAnswer::Accepted { .. });
        if is_accepted || !job.status.is_finished() {
            events.push(one.event());
        }
        one.change(job);
        if let EngineAnswer::Accepted { uploads: theirs, .. } = &one.answer {
            uploads.extend(theirs.iter().map(|upload| (*seq, upload)));
        }
    }
    update_jobs(pipeline, &jobs.values().collect::<Vec<_>>()).await?;
    if !events.is_empty() {
        let query = pipeline.next().await?;
        rows::push_events(query, &events);
        query.push(";");
    }
    update_inputs(pipeline, &uploads).await?;
    let mut is_any_adopted = false;
    for one in answers {
        if let (true, Some((_, job))) = (one.names_engine_job(), jobs.get(&one.id)) {
            is_any_adopted |= adopted::adopt(pipeline, job, one.now, orders).await?;
        }
    }
    if is_any_adopted {
        jobs = read::jobs_of(pipeline, &ids).await?;
    }
    let mut found = Vec::with_capacity(answers.len());
    for id in ids {
        found.push(match jobs.get(&id) {
            Some((_, job)) => Lookup::Found(job.clone()),
            None => read::missing(pipeline.connection().await?, id).await?,
        });
    }
    Ok(found)
}

async fn update_jobs(pipeline: &mut Pipeline<'_>, jobs: &[&(i64, Job)]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let query = pipeline.next().await?;
    query.push(
        "update jobs set status = fresh.column2, engine_status = fresh.column3,
             warnings = fresh.column4, engine_job_id = fresh.column5, submitted_at = fresh.column6
         from (",
    );
    query.push_values(jobs, |mut row, (seq, job)| {
        row.push_bind(seq)
            .push_bind(job.status.as_str())
            .push_bind(job.engine_status)
            .push_bind(rows::json_texts(&job.warnings))
            .push_bind(&job.engine_job_id)
            .push_bind(job.submitted_at.map(|at| at.as_millisecond()));
    });
    query.push(") as fresh where jobs.seq = fresh.column1;");
    let responses: Vec<(i64, &str)> = jobs
        .iter()
        .filter_map(|(seq, job)| Some((*seq, job.engine_response.as_ref()?.get())))
        .collect();
    if !responses.is_empty() {
        query.push("update job_bodies set engine_response = fresh.column2 from (");
        query.push_values(responses, |mut row, (seq, response)| {
            row.push_bind(seq).push_bind(response);
        });
        query.push(") as fresh where job_seq = fresh.column1;");
    }
    Ok(())
}

/// Records the upload addresses of inputs, given by their job's seq.
async fn update_inputs(
    pipeline: &mut Pipeline<'_>,
    uploads: &[(i64, &InputLinks)],
) -> sqlx::Result<()> {
    for chunk in uploads.chunks(rows::ROWS_PER_STATEMENT) {
        let query = pipeline.next_of_any_length().await?;
        query.push(
            "update job_inputs set upload_url = fresh.column3, notify_url = fresh.column4 from (",
        );
        query.push_values(chunk, |mut row, (job_seq, (name, upload_url, notify_url))| {
            row.push_bind(job_seq).push_bind(name).push_bind(upload_url).push_bind(notify_url);
        });
        query.push(") as fresh where job_seq = fresh.column1 and name = fresh.column2;");
    }
    Ok(())
}

impl RecordAnswer {
    /// Whether it contains the Engine's id of the job.
    fn names_engine_job(&self) -> bool {
        matches!(&self.answer, EngineAnswer::Accepted { engine_job_id: Some(_), .. })
    }

    /// Applies the answer to a job. A finished job stays finished.
    fn change(&self, job: &mut Job) {
        if !job.status.is_finished() {
            job.status = self.status();
        }
        job.engine_status = self.engine_status();
        // A job that was not submitted here has no bodies.
        if let Some(response) = self.response().filter(|_| job.request.is_some()) {
            job.engine_response = Some(response.to_owned());
        }
        let EngineAnswer::Accepted { engine_job_id, uploads, warnings, .. } = &self.answer else {
            return;
        };
        job.submitted_at = Some(from_millis(self.now.as_millisecond()));
        for warning in warnings {
            job.warn(warning);
        }
        if engine_job_id.is_some() {
            job.engine_job_id.clone_from(engine_job_id);
        }
        for (name, upload_url, notify_url) in uploads {
            for input in job.inputs.iter_mut().filter(|input| input.name == *name) {
                input.upload_url.clone_from(upload_url);
                input.notify_url.clone_from(notify_url);
            }
        }
    }

    fn status(&self) -> JobStatus {
        match self.answer {
            EngineAnswer::Accepted { .. } => JobStatus::Submitted,
            EngineAnswer::Rejected { .. } => JobStatus::Rejected,
            EngineAnswer::Unsent { .. } => JobStatus::Unsent,
            EngineAnswer::Unconfirmed { .. } => JobStatus::Unconfirmed,
        }
    }

    fn engine_status(&self) -> Option<u16> {
        match self.answer {
            EngineAnswer::Accepted { engine_status, .. }
            | EngineAnswer::Rejected { engine_status, .. } => Some(engine_status),
            EngineAnswer::Unsent { engine_status, .. }
            | EngineAnswer::Unconfirmed { engine_status, .. } => engine_status,
        }
    }

    fn response(&self) -> Option<&RawValue> {
        match &self.answer {
            EngineAnswer::Accepted { response, .. } | EngineAnswer::Rejected { response, .. } => {
                response.as_deref()
            }
            _ => None,
        }
    }

    fn event(&self) -> NewEvent {
        let engine_status = self.engine_status();
        let told = |reason: &str, detail: Option<&str>| json!({ "reason": reason, "engineStatus": engine_status, "detail": detail });
        let (kind, data) = match &self.answer {
            EngineAnswer::Accepted { engine_job_id, .. } => {
                (EventType::JobSubmitted, json!({ "engineJobId": engine_job_id }))
            }
            EngineAnswer::Rejected { .. } => {
                (EventType::JobRejected, told("engine-rejected", JobStatus::Rejected.outlook()))
            }
            EngineAnswer::Unsent { reason, detail, .. } => {
                (EventType::JobUnsent, told(reason, Some(detail)))
            }
            EngineAnswer::Unconfirmed { reason, detail, .. } => {
                (EventType::JobUnconfirmed, told(reason, Some(detail)))
            }
        };
        NewEvent::new(self.id, kind, self.now).with(data)
    }
}
