//! The result of a job: its content is decided once, its form follows the dialect.
//!
//! `finish_with` is called when a job finishes; callbacks and polls render again only to re-sign links.
//! Invariant: rendering again changes only the links.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::job::{AcceptedJob, JobState, Output, OutputStatus};
use super::link::StoredFile;
use super::{Conflict, Echo, Options, ResultShape, Simulator, State};

impl Simulator {
    /// Finishes a job with its result, a failure if there is an error; false if there is no
    /// unfinished job with this id.
    pub(super) fn finish_with(&self, engine_job_id: &str, error: Option<String>) -> bool {
        let settled = self.change(|state| {
            let State { options, random, jobs, job_positions, .. } = state;
            let job = jobs.get_mut(*job_positions.get(engine_job_id)?)?;
            if job.is_finished() {
                return None;
            }
            let told = options.fail_job.strikes(random);
            job.error = error.or(told.then(|| "the job could not be computed".to_owned()));
            job.success = Some(job.error.is_none());
            for output in &mut job.outputs {
                output.status = Some(status(output, options));
            }
            job.output_size = options.output_size;
            job.result = Some(self.render(job, options));
            job.state = JobState::Finished;
            job.finished_at = Some(Timestamp::now());
            Some(())
        });
        settled.is_some()
    }

    /// The result's bytes, with freshly signed links.
    pub(super) fn render(&self, job: &AcceptedJob, options: &Options) -> Bytes {
        let mut result = Map::new();
        if let Some(name) = options.id_field.name() {
            result.insert(name.into(), json!(job.engine_job_id));
        }
        result.insert("success".into(), json!(job.success == Some(true)));
        match &job.error {
            Some(error) => result.insert("error".into(), json!(error)),
            None => result.insert("outputFiles".into(), self.render_outputs(job, options)),
        };
        let mut body = Value::Object(result).to_string();
        if options.result_padding > 0 {
            add_field(&mut body, "padding", &format!("\"{}\"", "x".repeat(options.result_padding)));
        }
        if options.result_nesting > 0 {
            let levels = options.result_nesting;
            add_field(&mut body, "nesting", &("[".repeat(levels) + &"]".repeat(levels)));
        }
        body.into()
    }

    fn render_outputs(&self, job: &AcceptedJob, options: &Options) -> Value {
        let mut kinds: Map<String, Value> = Map::new();
        for output in &job.outputs {
            let rendered = self.render_output(job, output, options);
            let kind = kinds.entry(output.kind.clone()).or_insert_with(|| json!([]));
            kind.as_array_mut().expect("every kind begins as a list").push(rendered);
        }
        if options.result_shape == ResultShape::Single {
            for kind in kinds.values_mut().filter(|kind| kind[1].is_null()) {
                *kind = kind[0].take();
            }
        }
        Value::Object(kinds)
    }

    fn render_output(&self, job: &AcceptedJob, output: &Output, options: &Options) -> Value {
        let mut rendered = json!({"status": status_word(output, options)});
        if options.echo != Echo::Nothing {
            rendered["extension"] = json!(output.extension);
        }
        if options.echo == Echo::All && !output.structures.is_empty() {
            rendered["structures"] = json!(output.structures);
        }
        if output.status == Some(OutputStatus::Available) && output.upload_url.is_none() {
            let file = StoredFile::Output(&output.file_name());
            rendered[options.url_field.name()] = json!(self.link(job, file, options.link_life));
        }
        if output.status == Some(OutputStatus::Failed) {
            rendered["error"] = json!("the output could not be computed");
        }
        rendered
    }

    /// The result of a job, contradicting the first one.
    pub(super) fn render_conflict(&self, job: &AcceptedJob, options: &Options) -> Bytes {
        let mut job = job.clone();
        if options.conflicting_repeat == Conflict::Success {
            job.success = job.success.map(|success| !success);
            job.error = match job.error {
                Some(_) => None,
                None => Some("the job could not be computed after all".into()),
            };
        }
        for output in &mut job.outputs {
            output.status = match output.status {
                Some(OutputStatus::Available) => Some(OutputStatus::Failed),
                _ => Some(OutputStatus::Available),
            };
        }
        self.render(&job, options)
    }
}

fn status(output: &Output, options: &Options) -> OutputStatus {
    if output.is_among(&options.failed) {
        OutputStatus::Failed
    } else if output.is_among(&options.missing) {
        OutputStatus::Missing
    } else {
        OutputStatus::Available
    }
}

fn status_word(output: &Output, options: &Options) -> &'static str {
    match output.status {
        Some(OutputStatus::Missing) => "Missing",
        Some(OutputStatus::Failed) => "Failed",
        _ if options.status_success => "Success",
        _ => "Available",
    }
}

/// Appends a field to the text of a JSON object that is not empty. Works on text, so nesting of any
/// depth is fine.
pub(super) fn add_field(body: &mut String, name: &str, value: &str) {
    body.pop();
    body.push_str(&format!(",\"{name}\":{value}}}"));
}
