//! The Engine's job result: what it says of each output, matched to the request.
//!
//! The body of the finish webhook and the answer to a poll are the same document. Only `success` is
//! documented, so the rest is matched without guessing. Invariant: what a job holds of a result is
//! bounded by the limits in `bounds`.

mod reading;

use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

pub use self::reading::{Reading, engine_job_id, read};
use super::{
    bounds::{Bound, MAX_OUTPUTS},
    job::{JobStatus, Output},
    names::Names,
};

/// The memory of an output besides its texts, in bytes, until it is stored.
pub const OUTPUT_BYTES: usize = 1024;

/// A job result as the Engine reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    pub success: bool,
    pub engine_job_id: Option<String>,
    /// In the Engine's order.
    pub outputs: Vec<ReportedOutput>,
    /// Entries that exceed a bound and are not among the outputs.
    pub left_out: LeftOut,
    /// The bytes of all texts in `outputs`.
    text_bytes: usize,
}

/// One output of a result, not yet matched to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedOutput {
    /// The key that it was listed under; `None` if the results are one plain list.
    pub kind: Option<String>,
    pub extension: Option<String>,
    /// `None` if the Engine did not echo them.
    pub structures: Option<Names>,
    pub status: Option<String>,
    pub url: Option<String>,
}

/// The entries of a body that were skipped because of the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub entries: usize,
    /// The bound that the first of them exceeds.
    pub bound: Option<Bound>,
}

impl LeftOut {
    /// Counts entries that exceed this bound.
    pub fn add(&mut self, bound: Bound, entries: usize) {
        self.entries += entries;
        self.bound.get_or_insert(bound);
    }

    /// The job's warning about them; `what` is the body that they are in.
    pub fn warning(self, what: &str) -> Option<String> {
        let bound = self.bound?.describe();
        Some(format!(
            "{} left unmatched, because there is more than {bound}; the body is kept as it came.",
            match self.entries {
                1 => format!("1 entry of {what} was"),
                entries => format!("{entries} entries of {what} were"),
            }
        ))
    }
}

impl JobResult {
    /// Applies this result to the job's outputs. `requested` are the job's outputs so far; for a
    /// job that was not submitted here it is empty, and the result determines the outputs.
    pub fn apply(&self, requested: &[Output]) -> Vec<Output> {
        let asked: Vec<&Output> =
            requested.iter().filter(|output| output.index.is_some()).collect();
        if asked.is_empty() {
            return self.as_reported();
        }
        // What an earlier result said of an output is discarded.
        let blank = |output: &&Output| Output { status: None, url: None, ..(*output).clone() };
        let mut outputs: Vec<Output> = asked.iter().map(blank).collect();
        let wanted: Vec<Set<'_>> = asked.iter().map(|output| Set::of(&output.structures)).collect();
        let mut taken = vec![false; outputs.len()];
        let mut unmatched = Vec::new();
        for (kind, reported) in self.by_kind() {
            let slots: Vec<usize> = (0..outputs.len())
                .filter(|&slot| kind.is_none_or(|kind| outputs[slot].kind == *kind))
                .collect();
            // A skipped entry has a position too, and it is unknown which.
            let is_by_position = self.left_out.entries == 0 && reported.len() == slots.len();
            for (position, output) in reported.iter().enumerate() {
                let found = match &output.structures {
                    Some(echoed) => {
                        let echoed = Set::of(echoed);
                        slots.iter().copied().find(|&slot| {
                            !taken[slot] && wanted[slot] == echoed && output.may_be(&outputs[slot])
                        })
                    }
                    None => is_by_position
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
        let room = MAX_OUTPUTS.saturating_sub(outputs.len());
        let unmatched = unmatched.into_iter().take(room).enumerate();
        outputs.extend(unmatched.map(|(position, output)| Output {
            index: None,
            ..output.as_output(format!("unmatched-{position}"), 0)
        }));
        outputs
    }

    /// The warnings of a job with this result; `outputs` are those of [`Self::apply`].
    pub fn warnings(&self, outputs: &[Output]) -> Vec<String> {
        let mut warnings = Vec::new();
        let unmatched = outputs.iter().filter(|output| output.index.is_none()).count();
        if unmatched > 0 {
            warnings
                .push("The result holds outputs that match none of the requested ones.".to_owned());
        }
        let is_told = |output: &&Output| output.status.is_some() || output.url.is_some();
        let told = outputs.iter().filter(is_told).count().max(unmatched);
        let mut left_out = self.left_out;
        if outputs.len() >= MAX_OUTPUTS && told < self.outputs.len() {
            left_out.add(Bound::Outputs, self.outputs.len() - told);
        }
        warnings.extend(left_out.warning("the result"));
        warnings
    }

    /// The status of the job with these outputs.
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

    /// Groups the outputs by the key that they were listed under, in the order of first appearance.
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

/// Names as a set: sorted, without duplicates.
#[derive(PartialEq)]
struct Set<'a> {
    /// Compared first: there are many sets, and most differ.
    hash: u64,
    names: Vec<&'a str>,
}

impl<'a> Set<'a> {
    fn of(names: &'a Names) -> Self {
        let mut names: Vec<&str> = names.iter().collect();
        names.sort_unstable();
        names.dedup();
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        Self { hash: hasher.finish(), names }
    }
}

impl ReportedOutput {
    fn text_bytes(&self) -> usize {
        let texts = [&self.kind, &self.extension, &self.status, &self.url];
        let structures = self.structures.as_ref().map_or(0, |names| names.bytes() + names.len());
        structures + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Whether the extension matches that of `output`; a missing extension matches any.
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

/// Digest of what a result says, apart from links: `success` and every output's status. Two results
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
    use crate::domain::bounds::{MAX_LINK_BYTES, MAX_OUTPUT_TEXT_BYTES};

    fn requested(extension: &str, structures: &[&str], index: u32) -> Output {
        Output {
            name: format!("meshes-{index}"),
            kind: "meshes".into(),
            index: Some(index),
            extension: Some(extension.into()),
            structures: structures.iter().collect(),
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
    fn a_job_holds_so_many_outputs_and_no_more() {
        let entries = |count: usize| vec![r#"{"status":"Available"}"#; count].join(",");
        for container in ["[*]", r#"{"meshes":[*]}"#] {
            let read = |count: usize| {
                let container = container.replace('*', &entries(count));
                result(&format!(r#"{{"success":true,"outputFiles":{container}}}"#))
            };
            assert_eq!(read(MAX_OUTPUTS).left_out, LeftOut::default());
            let many = read(MAX_OUTPUTS * 3);
            assert_eq!((many.outputs.len(), many.left_out.entries), (MAX_OUTPUTS, MAX_OUTPUTS * 2));
            // Requested outputs keep their slots, and the others fill the remaining room.
            let asked = [requested(".stl", &["skull"], 0)];
            let outputs = many.apply(&asked);
            assert_eq!((outputs.len(), &*outputs[0].name), (MAX_OUTPUTS, "meshes-0"));
            assert_eq!(outputs[0].status, None, "nobody knows which of them it is");
            assert_eq!(many.warnings(&outputs).len(), 2);
            assert_eq!(many.apply(&[]).len(), MAX_OUTPUTS);
        }
        let link = format!("https://s/{}", "a".repeat(MAX_LINK_BYTES - 10));
        let entry = format!(r#"{{"url":"{link}"}}"#);
        let body = format!(r#"{{"success":true,"outputs":[{}]}}"#, vec![&*entry; 900].join(","));
        let wordy = result(&body);
        assert_eq!(wordy.left_out.bound, Some(Bound::TextBytes));
        assert!(wordy.text_bytes <= MAX_OUTPUT_TEXT_BYTES && wordy.outputs.len() > 500);
    }
}
