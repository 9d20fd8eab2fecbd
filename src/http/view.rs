//! What each caller may see of a job, an order, a problem.
//!
//! The only place where a job of the domain becomes JSON of the API: a handler must state its
//! caller. Invariants: without the scope `read`, an answer holds no link to an output and nothing
//! of the request or of the Engine's reply; without `submit`, a job's own `finishWebhook` is shown
//! without its query, which is a credential.

use serde_json::value::RawValue;

use super::{access::Caller, error::Problem};
use crate::{
    api::{self, BriefJob, BriefRelay, JobView, RelayView},
    config::Scope,
    domain::{
        job::Job,
        json::Json,
        relay::{Relay, webhook_id},
    },
};

/// The caller's own webhook in a job's body.
const FINISH_WEBHOOK: &str = "finishWebhook";

impl Caller {
    /// The job as visible to this caller.
    pub fn view(&self, job: Job) -> JobView {
        if self.may(Scope::Read) {
            return self.whole(job).into();
        }
        let job = job.into_shown();
        let inputs = self.may(Scope::Submit).then_some(job.inputs);
        JobView::Brief(BriefJob {
            id: job.id.to_string(),
            status: job.status.as_str().into(),
            warnings: job.warnings,
            inputs: inputs.map(|inputs| inputs.into_iter().map(api::Input::from).collect()),
        })
    }

    /// The whole job, for lists of jobs.
    pub(super) fn view_whole(&self, job: Job) -> Result<api::Job, Problem> {
        self.require(Scope::Read)?;
        Ok(self.whole(job))
    }

    /// The order as visible to this caller.
    pub(super) fn view_relay(&self, relay: Relay) -> RelayView {
        if self.may(Scope::Read) {
            return RelayView::Full(whole_relay(relay));
        }
        let (id, state) = (relay.id.to_string(), relay.state.as_str().into());
        RelayView::Brief(BriefRelay { id, state })
    }

    /// The whole order, for lists of orders.
    pub(super) fn view_whole_relay(&self, relay: Relay) -> Result<api::Relay, Problem> {
        self.require(Scope::Read)?;
        Ok(whole_relay(relay))
    }

    /// The problem without what this caller may not read. The Engine's reasons for refusing a body
    /// are also for its submitter.
    pub(super) fn view_problem(&self, problem: Problem) -> Problem {
        match problem {
            Problem::EngineRejected { job_id, engine_status, .. }
                if !self.may(Scope::Read) && !self.may(Scope::Submit) =>
            {
                Problem::EngineRejected { job_id, engine_status, engine_body: None }
            }
            problem => problem,
        }
    }

    fn whole(&self, job: Job) -> api::Job {
        let job = job.into_shown();
        let request = match self.may(Scope::Submit) {
            true => job.request,
            false => job.request.map(without_webhook_query),
        };
        api::Job {
            id: job.id.to_string(),
            reference: job.reference,
            status: job.status.as_str().into(),
            success: job.success,
            overdue: job.overdue,
            origin: job.origin.as_str().into(),
            secured: job.secured,
            engine_job_id: job.engine_job_id,
            end_user_id: job.end_user_id,
            cloud_package: job.cloud_package,
            external_job_id: job.external_job_id,
            created_at: job.created_at,
            submitted_at: job.submitted_at,
            finished_at: job.finished_at,
            request,
            inputs: job.inputs.into_iter().map(api::Input::from).collect(),
            outputs: job.outputs.into_iter().map(api::Output::from).collect(),
            engine_response: job.engine_response,
            deliveries: job.deliveries,
            warnings: job.warnings,
        }
    }
}

fn whole_relay(relay: Relay) -> api::Relay {
    api::Relay {
        id: relay.id.to_string(),
        job_id: relay.job_id.to_string(),
        webhook_id: webhook_id(relay.job_id, relay.id),
        target: relay.target,
        state: relay.state.as_str().into(),
        attempts: relay.attempts,
        next_attempt_at: relay.next_attempt_at,
        last_status: relay.last_status,
    }
}

/// A job's body with every `finishWebhook` cut before its query; the rest keeps its spelling. A
/// value that is not text is replaced by `null`, since its content is unknown.
pub(super) fn without_webhook_query(request: Box<RawValue>) -> Box<RawValue> {
    let Some(members) = Json::from(&*request).members() else { return request };
    if !members.clone().any(|(name, _)| name.is(FINISH_WEBHOOK)) {
        return request;
    }
    let shown = members.map(|(name, value)| match name.is(FINISH_WEBHOOK) {
        true => format!("{}:{}", name.get(), shortened(value)),
        false => format!("{}:{}", name.get(), value.get()),
    });
    let text = format!("{{{}}}", shown.collect::<Vec<_>>().join(","));
    RawValue::from_string(text).expect("members of an object make an object")
}

fn shortened(value: Json<'_>) -> String {
    let Some(url) = value.text() else { return "null".into() };
    let end = url.find(['?', '#']).unwrap_or(url.len());
    serde_json::to_string(&url[..end]).expect("a text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ApiKeyConfig, domain::ids::JobId};

    #[test]
    fn what_the_engine_said_of_a_body_is_for_its_submitter_and_its_readers() {
        for scope in Scope::ALL {
            let key = ApiKeyConfig { name: "a".into(), digest: [1; 32], scopes: vec![scope] };
            let problem = Problem::EngineRejected {
                job_id: JobId(uuid::Uuid::from_u128(7)),
                engine_status: Some(422),
                engine_body: Some(RawValue::NULL.to_owned()),
            };
            let shown = Caller::of_key(&key).view_problem(problem);
            let is_shown = matches!(shown, Problem::EngineRejected { engine_body: Some(_), .. });
            assert_eq!(is_shown, matches!(scope, Scope::Submit | Scope::Read), "{scope:?}");
        }
    }

    fn shown(body: &str) -> String {
        let body = RawValue::from_string(body.to_owned()).expect("JSON");
        without_webhook_query(body).get().to_owned()
    }

    #[test]
    fn a_webhook_loses_its_query_however_it_is_spelled_and_all_else_stays() {
        let untouched = r#"{ "n": 1.10, "x": {"finishWebhook": "https://a/b?c"} }"#;
        assert_eq!(shown(untouched), untouched);
        for body in [
            r#"{"n":1.10,"finishWebhook":"https://app.example/hook?token=hush"}"#,
            r#"{"n":1.10,"finish\u0057ebhook":"https://app.example/hook\u003ftoken=hush"}"#,
            r#"{"n":1.10,"finishWebhook":"https://app.example/hook#hush?hush"}"#,
        ] {
            let shown = shown(body).replace("\\u0057", "W");
            assert_eq!(shown, r#"{"n":1.10,"finishWebhook":"https://app.example/hook"}"#);
        }
        let twice = r#"{"finishWebhook":"https://a/?hush","finishWebhook":["https://b/?hush"]}"#;
        assert_eq!(shown(twice), r#"{"finishWebhook":"https://a/","finishWebhook":null}"#);
    }
}
