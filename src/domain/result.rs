//! Reading the Engine's job result: from bytes to a [`JobResult`], or why not.
//!
//! The body of the finish webhook and the answer to a poll are the same document. Its `success` is
//! stated; the rest is undocumented, so it is read tolerantly and matched without guessing. The
//! invariant: any bytes are read without a panic, and what cannot be read changes nothing.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    job::{JobStatus, Output},
    json,
};

/// Where the per-file results may stand; the first one present is taken.
const CONTAINERS: [&str; 4] = ["outputFiles", "outputs", "results", "files"];

/// Outputs of a result that are looked at; a job has tens of them.
const MAX_OUTPUTS: usize = 1_000;

/// Names of an output's link: the documentation uses both.
const LINKS: [&str; 2] = ["url", "downloadUrl"];

/// What a body turned out to be.
#[derive(Clone, Debug)]
pub enum Reading {
    Result(JobResult),
    /// JSON, but no object with one boolean `success`; the reason is for people.
    Unrecognised(&'static str),
    /// Not JSON; the reason is for people.
    Malformed(String),
}

/// A job result as the Engine reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    pub success: bool,
    pub engine_job_id: Option<String>,
    /// In the Engine's order.
    pub outputs: Vec<ReportedOutput>,
}

/// One output of a result, not yet matched to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedOutput {
    /// The key it stood under; `None` if the results are one plain list.
    pub kind: Option<String>,
    pub extension: Option<String>,
    /// `None` if the Engine did not echo them.
    pub structures: Option<Vec<String>>,
    pub status: Option<String>,
    pub url: Option<String>,
}

/// Reads a body. `id_pointers` are the places where the Engine's job id may stand, best first.
pub fn read(body: &[u8], id_pointers: &[String]) -> Reading {
    let value = match json::parse(body) {
        Ok(value) => value,
        Err(reason) => return Reading::Malformed(reason),
    };
    let Some(members) = json::members(value) else {
        return Reading::Unrecognised("not an object");
    };
    let mut verdicts = members.iter().filter(|(name, _)| name == "success").map(|(_, value)| value);
    let Some(success) = verdicts.next() else {
        return Reading::Unrecognised("no success");
    };
    let Some(success) = json::boolean(success) else {
        return Reading::Unrecognised("success is not a boolean");
    };
    if verdicts.any(|other| json::boolean(other) != Some(success)) {
        return Reading::Unrecognised("success stands there twice and disagrees");
    }
    Reading::Result(JobResult {
        success,
        engine_job_id: job_id_of(
            id_pointers.iter().filter_map(|pointer| json::at_pointer_in(&members, pointer)),
        ),
        outputs: reported_outputs(&members),
    })
}

/// The Engine's id for a job: the first pointer that leads to a text or a number.
pub fn engine_job_id(value: &RawValue, id_pointers: &[String]) -> Option<String> {
    job_id_of(id_pointers.iter().filter_map(|pointer| json::at_pointer(value, pointer)))
}

fn job_id_of<'a>(mut found: impl Iterator<Item = &'a RawValue>) -> Option<String> {
    found.find_map(|found| {
        let digits = || found.get().parse::<u64>().ok().map(|number| number.to_string());
        json::text(found).filter(|id| !id.is_empty()).or_else(digits)
    })
}

fn reported_outputs(members: &[(String, &RawValue)]) -> Vec<ReportedOutput> {
    let Some(container) = CONTAINERS.iter().find_map(|name| json::member(members, name)) else {
        return Vec::new();
    };
    if let Some(entries) = json::elements(container) {
        let outputs = entries.into_iter().filter_map(|entry| reported_output(None, entry));
        return outputs.take(MAX_OUTPUTS).collect();
    }
    let mut outputs = Vec::new();
    for (kind, value) in json::members(container).unwrap_or_default() {
        let entries = json::elements(value).unwrap_or_else(|| vec![value]);
        let found = entries.into_iter().filter_map(|entry| reported_output(Some(&kind), entry));
        outputs.extend(found.take(MAX_OUTPUTS - outputs.len()));
    }
    outputs
}

fn reported_output(kind: Option<&String>, value: &RawValue) -> Option<ReportedOutput> {
    let entry = json::members(value)?;
    let text = |name: &str| json::member(&entry, name).and_then(json::text);
    let structures = json::member(&entry, "structures").and_then(json::elements);
    Some(ReportedOutput {
        kind: kind.cloned(),
        extension: text("extension"),
        structures: structures.map(|found| found.into_iter().filter_map(json::text).collect()),
        status: text("status"),
        url: LINKS.iter().find_map(|name| text(name)),
    })
}

impl JobResult {
    /// The job's outputs with this result applied. `requested` are the job's outputs so far; for a
    /// job that was not submitted here it is empty, and the result itself says what there is.
    pub fn apply(&self, requested: &[Output]) -> Vec<Output> {
        // What an earlier result said of an output is not what this one says.
        let blank = |output: &Output| Output { status: None, url: None, ..output.clone() };
        let asked: Vec<Output> =
            requested.iter().filter(|output| output.index.is_some()).map(blank).collect();
        if asked.is_empty() {
            return self.as_reported();
        }
        let mut outputs = asked;
        let wanted: Vec<Vec<String>> =
            outputs.iter().map(|output| as_set(&output.structures)).collect();
        let mut taken = vec![false; outputs.len()];
        let mut unmatched = Vec::new();
        for (kind, reported) in self.by_kind() {
            let slots: Vec<usize> = (0..outputs.len())
                .filter(|&slot| kind.is_none_or(|kind| outputs[slot].kind == *kind))
                .collect();
            for (position, output) in reported.iter().enumerate() {
                let found = match &output.structures {
                    Some(echoed) => {
                        let echoed = as_set(echoed);
                        slots.iter().copied().find(|&slot| {
                            !taken[slot] && wanted[slot] == echoed && output.may_be(&outputs[slot])
                        })
                    }
                    None => (reported.len() == slots.len())
                        .then(|| slots[position])
                        .filter(|&slot| !taken[slot] && output.may_be(&outputs[slot])),
                };
                match found {
                    Some(slot) => {
                        taken[slot] = true;
                        outputs[slot].status.clone_from(&output.status);
                        outputs[slot].url.clone_from(&output.url);
                    }
                    None => unmatched.push(*output),
                }
            }
        }
        let unmatched = unmatched.into_iter().enumerate().map(|(position, output)| Output {
            index: None,
            ..output.as_output(format!("unmatched-{position}"), 0)
        });
        outputs.extend(unmatched);
        outputs
    }

    /// Where the job stands with these outputs.
    pub fn status(&self, outputs: &[Output]) -> JobStatus {
        let failed = |output: &Output| {
            output.status.as_ref().is_some_and(|status| status.eq_ignore_ascii_case("failed"))
        };
        match self.success {
            false => JobStatus::Failed,
            true if outputs.iter().any(failed) => JobStatus::Partial,
            true => JobStatus::Succeeded,
        }
    }

    /// The outputs by the key they stood under, in the order of their first.
    fn by_kind(&self) -> Vec<(Option<&String>, Vec<&ReportedOutput>)> {
        let mut kinds: Vec<(Option<&String>, Vec<&ReportedOutput>)> = Vec::new();
        for output in &self.outputs {
            let kind = output.kind.as_ref();
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, outputs)) => outputs.push(output),
                None => kinds.push((kind, vec![output])),
            }
        }
        kinds
    }

    fn as_reported(&self) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (kind, reported) in self.by_kind() {
            let kind = kind.map_or("output", |kind| kind.as_str());
            for (index, output) in (0u32..).zip(reported) {
                outputs.push(output.as_output(format!("{kind}-{index}"), index));
            }
        }
        outputs
    }
}

/// Names in an order of their own, each once: how a set is compared.
fn as_set(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names
}

impl ReportedOutput {
    /// Whether the extension, as far as echoed, is that of `output`.
    fn may_be(&self, output: &Output) -> bool {
        self.extension.is_none() || output.extension.is_none() || self.extension == output.extension
    }

    fn as_output(&self, name: String, index: u32) -> Output {
        Output {
            name,
            kind: self.kind.clone().unwrap_or_else(|| "output".into()),
            index: Some(index),
            extension: self.extension.clone(),
            structures: self.structures.clone().unwrap_or_default(),
            status: self.status.clone(),
            url: self.url.clone(),
            file: None,
        }
    }
}

/// Digest of what a result says, links set aside: `success` and every output's status. Two results
/// of one job with equal digests have the same reading.
pub fn reading_digest(success: bool, outputs: &[Output]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(success)]);
    for output in outputs {
        for text in [Some(&output.name), output.status.as_ref()] {
            match text {
                Some(text) => {
                    hasher.update((text.len() as u64).to_be_bytes());
                    hasher.update(text);
                }
                None => hasher.update(u64::MAX.to_be_bytes()),
            }
        }
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(extension: &str, structures: &[&str], index: u32) -> Output {
        Output {
            name: format!("meshes-{index}"),
            kind: "meshes".into(),
            index: Some(index),
            extension: Some(extension.into()),
            structures: structures.iter().map(|name| (*name).to_owned()).collect(),
            status: None,
            url: None,
            file: None,
        }
    }

    fn result(body: &str) -> JobResult {
        match read(body.as_bytes(), &["/jobId".into(), "/id".into()]) {
            Reading::Result(result) => result,
            other => panic!("expected a result, got {other:?}"),
        }
    }

    fn statuses(outputs: &[Output]) -> Vec<(&str, Option<&str>)> {
        outputs.iter().map(|output| (output.name.as_str(), output.status.as_deref())).collect()
    }

    #[test]
    fn echoed_outputs_are_matched_by_extension_and_structures() {
        let asked =
            [requested(".stl", &["skull"], 0), requested(".stl", &["tooth11", "tooth12"], 1)];
        let result = result(
            r#"{"success":true,"id":7,"outputFiles":{"meshes":[
            {"extension":".stl","structures":["tooth12","tooth11"],"status":"Missing"},
            {"extension":".stl","structures":["skull"],"status":"Available","downloadUrl":"https://x/1"},
            {"extension":".stl","structures":["tongue"],"status":"Available"}]}}"#,
        );
        let outputs = result.apply(&asked);
        assert_eq!(
            statuses(&outputs),
            [
                ("meshes-0", Some("Available")),
                ("meshes-1", Some("Missing")),
                ("unmatched-0", Some("Available")),
            ]
        );
        assert_eq!(outputs[0].url.as_deref(), Some("https://x/1"));
        assert_eq!(outputs[2].index, None);
        assert_eq!(result.engine_job_id.as_deref(), Some("7"));
        assert_eq!(result.status(&outputs), JobStatus::Succeeded);
    }

    #[test]
    fn without_an_echo_equal_lengths_match_by_position_and_others_not_at_all() {
        let asked = [requested(".stl", &["skull"], 0), requested(".ply", &["skull"], 1)];
        let two = result(
            r#"{"success":true,"outputFiles":{"meshes":[{"status":"Failed"},{"status":"Success"}]}}"#,
        );
        let outputs = two.apply(&asked);
        assert_eq!(
            statuses(&outputs),
            [("meshes-0", Some("Failed")), ("meshes-1", Some("Success"))]
        );
        assert_eq!(two.status(&outputs), JobStatus::Partial);
        let one = result(r#"{"success":true,"outputFiles":{"meshes":{"status":"Available"}}}"#);
        assert_eq!(
            statuses(&one.apply(&asked)),
            [("meshes-0", None), ("meshes-1", None), ("unmatched-0", Some("Available"))]
        );
    }

    #[test]
    fn renewed_links_keep_the_reading_and_another_status_changes_it() {
        let asked = [requested(".stl", &["skull"], 0)];
        let digest = |status: &str, url: &str| {
            let body = format!(
                r#"{{"success":true,"outputFiles":{{"meshes":[{{"status":"{status}","url":"{url}"}}]}}}}"#
            );
            reading_digest(true, &result(&body).apply(&asked))
        };
        assert_eq!(digest("Available", "https://x/1"), digest("Available", "https://x/2"));
        assert_ne!(digest("Available", "https://x/1"), digest("Missing", "https://x/1"));
    }

    #[test]
    fn only_an_object_with_one_boolean_success_is_a_result() {
        let ids = ["/jobId".to_owned()];
        for body in
            ["null", "[]", "{}", r#"{"success":"true"}"#, r#"{"success":true,"success":false}"#]
        {
            assert!(matches!(read(body.as_bytes(), &ids), Reading::Unrecognised(_)), "{body}");
        }
        for body in ["", "{", "\u{0}", "NaN"] {
            assert!(matches!(read(body.as_bytes(), &ids), Reading::Malformed(_)), "{body}");
        }
        assert!(result(r#"{"success":true,"success":true}"#).success);
    }

    #[test]
    fn bottomless_nesting_is_read_without_a_crash() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let body = format!(r#"{{"success":false,"outputFiles":{{"meshes":{deep}}},"x":{deep}}}"#);
        assert!(!result(&body).success);
    }
}
