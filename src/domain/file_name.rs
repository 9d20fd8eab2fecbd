//! The names under which a job's files are saved: readable, and harmless on any system.
//!
//! Used by `http` for downloads and bundles, and by the download commands. Invariant: a name is one
//! segment without separators, control or direction characters, whatever the caller and the Engine
//! wrote.

use std::collections::HashSet;

use super::{
    ids::JobId,
    job::{Job, Output},
    names::Names,
};

/// The longest label and the longest content part. With both, an extension and four bytes for each
/// character, a name stays below the 255 bytes that file systems allow.
const MAX_LABEL_CHARS: usize = 24;
const MAX_CONTENT_CHARS: usize = 32;

/// The longest extension, including its dot.
const MAX_EXTENSION_CHARS: usize = 16;

/// The job that a file belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub job_id: JobId,
    pub reference: Option<&'a str>,
}

/// What is in a file.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The output's name.
    pub name: &'a str,
    pub extension: Option<&'a str>,
    pub structures: &'a Names,
}

/// The name of an output's file, see [`of_content`].
pub fn of_output(job: &Job, output: &Output) -> String {
    let (name, extension) = (output.name.as_str(), output.extension.as_deref());
    of_content(Owner::of(job), Content { name, extension, structures: &output.structures })
}

/// `case-42-mandible.stl`: the caller's label or else the job's id, then the structures if they are
/// short enough or else the output's name.
pub fn of_content(owner: Owner<'_>, content: Content<'_>) -> String {
    let label = owner.label();
    let structures = content.structures.join("+");
    let is_short = (1..=MAX_CONTENT_CHARS).contains(&structures.chars().count());
    let text = harmless(if is_short { &structures } else { content.name }, MAX_CONTENT_CHARS);
    let extension = content.extension.map(extension).unwrap_or_default();
    match text.is_empty() {
        true => format!("{label}{extension}"),
        false => format!("{label}-{text}{extension}"),
    }
}

/// The name of the bundle of all files of a job.
pub fn of_bundle(job: &Job) -> String {
    format!("{}.zip", Owner::of(job).label())
}

impl<'a> Owner<'a> {
    fn of(job: &'a Job) -> Self {
        Self { job_id: job.id, reference: job.reference.as_deref() }
    }

    fn label(self) -> String {
        let label = self.reference.map(|label| harmless(label, MAX_LABEL_CHARS));
        label.filter(|label| !label.is_empty()).unwrap_or_else(|| self.job_id.to_string())
    }
}

/// Makes the names unique, ignoring case.
pub fn distinct(names: Vec<String>) -> Vec<String> {
    let mut taken = HashSet::new();
    let distinct = |name: String| {
        let (stem, extension) = name.split_at(extension_start(&name));
        let numbered = (2..).map(|number| format!("{stem}-{number}{extension}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| taken.insert(name.to_lowercase()))
            .expect("there is always a further number")
    };
    names.into_iter().map(distinct).collect()
}

/// Where the extension of a name begins; `.nii.gz` is one extension.
fn extension_start(name: &str) -> usize {
    let last = name.rfind('.').unwrap_or(name.len());
    match name[last..].eq_ignore_ascii_case(".gz") {
        true => name[..last].rfind('.').unwrap_or(last),
        false => last,
    }
}

/// Replaces characters that have a meaning to a file system, a shell or a screen, and removes dots
/// and blanks at both ends.
fn harmless(text: &str, max_chars: usize) -> String {
    let is_kept = |character: char| {
        character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | ' ')
    };
    let kept: String = text
        .chars()
        .take(max_chars)
        .map(|character| if is_kept(character) { character } else { '_' })
        .collect();
    kept.trim_matches(['.', ' ']).to_owned()
}

/// Keeps letters, digits and inner dots, as in `.nii.gz`.
fn extension(text: &str) -> String {
    let is_kept = |character: char| character.is_ascii_alphanumeric() || character == '.';
    let kept: String = text.chars().take(MAX_EXTENSION_CHARS).filter(|one| is_kept(*one)).collect();
    match kept.trim_matches('.') {
        "" => String::new(),
        kept => format!(".{kept}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::job::{JobStatus, Origin};

    fn job(reference: Option<&str>) -> Job {
        Job {
            id: JobId::new(Timestamp::UNIX_EPOCH),
            status: JobStatus::Succeeded,
            success: Some(true),
            overdue: false,
            origin: Origin::Submitted,
            secured: None,
            reference: reference.map(str::to_owned),
            engine_job_id: None,
            end_user_id: None,
            cloud_package: None,
            external_job_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            submitted_at: None,
            finished_at: None,
            request: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            engine_status: None,
            engine_response: None,
            deliveries: 1,
            warnings: Vec::new(),
        }
    }

    fn output(structures: &[&str], extension: Option<&str>) -> Output {
        Output {
            name: "meshes-0".into(),
            kind: "meshes".into(),
            index: Some(0),
            extension: extension.map(str::to_owned),
            structures: structures.iter().collect(),
            status: None,
            url: None,
            file: None,
        }
    }

    #[test]
    fn a_name_says_whose_and_what() {
        let name = |reference, structures: &[&str], extension| {
            of_output(&job(reference), &output(structures, extension))
        };
        let case = Some("case-42");
        assert_eq!(name(case, &["mandible"], Some(".stl")), "case-42-mandible.stl");
        assert_eq!(name(case, &["mandible", "skull"], Some(".ply")), "case-42-mandible+skull.ply");
        assert_eq!(name(case, &["tooth"; 32], Some(".nii.gz")), "case-42-meshes-0.nii.gz");
        assert_eq!(name(Some("Müller 7"), &[], None), "Müller 7-meshes-0");
        assert_eq!(of_bundle(&job(case)), "case-42.zip");
        let nameless = job(None);
        let skull = of_output(&nameless, &output(&["skull"], Some(".stl")));
        assert_eq!(skull, format!("{}-skull.stl", nameless.id));
    }

    #[test]
    fn no_name_is_a_path_a_command_or_a_disguise() {
        let hostile = [
            "../../etc/passwd",
            "..\\..\\x",
            "a\0b\r\nc",
            "\u{202e}gpj.exe",
            "C:evil",
            "a\"; filename=\"b",
            "~/$(x)`y`|z",
            "...",
            "",
            "🦷🦷🦷",
            &"ü".repeat(1000),
        ];
        for text in hostile {
            let job = job(Some(text));
            let name = of_output(&job, &output(&[text], Some(&format!(".{text}"))));
            let is_harmless = |one: char| one.is_alphanumeric() || "-_.+ ".contains(one);
            assert!(name.chars().all(is_harmless), "{text:?}: {name:?}");
            assert!(!name.starts_with('.') && !name.is_empty(), "{text:?}: {name:?}");
            assert!(name.len() <= 255, "{text:?}: {name:?}");
        }
    }

    #[test]
    fn a_number_goes_before_the_whole_extension() {
        let names =
            ["scan.nii.gz", "scan.nii.gz", "scan.v2.stl", "scan.v2.stl", "scan.gz", "scan.gz"];
        let distinct = distinct(names.map(str::to_owned).into());
        let expected = [
            "scan.nii.gz",
            "scan-2.nii.gz",
            "scan.v2.stl",
            "scan.v2-2.stl",
            "scan.gz",
            "scan-2.gz",
        ];
        assert_eq!(distinct, expected);
    }

    #[test]
    fn names_of_a_bundle_differ_whatever_their_case() {
        let names = ["a.stl", "A.stl", "a.stl", "a-2.stl", "b"].map(str::to_owned);
        let distinct = distinct(names.into());
        assert_eq!(distinct, ["a.stl", "A-2.stl", "a-3.stl", "a-2-2.stl", "b"]);
    }
}
