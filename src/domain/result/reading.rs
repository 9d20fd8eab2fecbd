//! Parses bytes into a [`JobResult`], or explains why it cannot.
//!
//! The parser is tolerant, because most of the document is undocumented. No input makes it panic,
//! and a body that cannot be read changes nothing. Memory grows with what is kept, not with what
//! was received.

use super::{JobResult, LeftOut, OUTPUT_BYTES, ReportedOutput};
use crate::domain::{
    bounds::{Bound, MAX_OUTPUT_TEXT_BYTES, MAX_OUTPUTS, link, member_name, name, structures},
    json::{self, Json},
};

/// The members that may hold the per-file results; the first one present is used.
const CONTAINERS: [&str; 4] = ["outputFiles", "outputs", "results", "files"];

/// The kinds of bodies.
#[derive(Clone, Debug)]
pub enum Reading {
    Result(JobResult),
    /// JSON, but not an object with one boolean `success`; the reason is for people.
    Unrecognised(&'static str),
    /// Not JSON; the reason is for people.
    Malformed(String),
}

impl Reading {
    /// The approximate memory use in bytes, without the body.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Result(result) => result.outputs.len() * OUTPUT_BYTES + result.text_bytes,
            Self::Unrecognised(_) => 0,
            Self::Malformed(reason) => reason.len(),
        }
    }
}

/// Reads a body. `id_pointers` are the possible places of the Engine's job id, best first.
pub fn read(body: &[u8], id_pointers: &[String]) -> Reading {
    let value = match json::parse(body) {
        Ok(value) => value,
        Err(reason) => return Reading::Malformed(reason),
    };
    let Some(members) = value.members() else {
        return Reading::Unrecognised("not an object");
    };
    // In one pass, because a body may be large.
    let (mut verdict, mut is_agreed) = (None, true);
    let mut containers = [None; CONTAINERS.len()];
    let mut ids: Vec<IdPlace<'_>> = id_pointers.iter().filter_map(|one| IdPlace::of(one)).collect();
    for (name, value) in members {
        if name.is("success") {
            let said = value.boolean();
            is_agreed &= verdict.is_none_or(|first| first == said);
            verdict.get_or_insert(said);
        }
        for (place, known) in containers.iter_mut().zip(CONTAINERS) {
            if name.is(known) {
                *place = Some(value);
            }
        }
        for id in &mut ids {
            if name.is(&id.member) {
                id.value = Some(value);
            }
        }
    }
    let success = match verdict {
        None => return Reading::Unrecognised("no success"),
        Some(None) => return Reading::Unrecognised("success is not a boolean"),
        Some(Some(_)) if !is_agreed => {
            return Reading::Unrecognised("success stands there twice and disagrees");
        }
        Some(Some(success)) => success,
    };
    let mut outputs = Outputs::default();
    if let Some(container) = containers.into_iter().flatten().next() {
        outputs.read(container);
    }
    Reading::Result(JobResult {
        success,
        engine_job_id: job_id_of(ids.iter().filter_map(IdPlace::found)),
        outputs: outputs.reported,
        left_out: outputs.left_out,
        text_bytes: outputs.text_bytes,
    })
}

/// A possible place of an id: a member of the body, and the pointer from there on.
struct IdPlace<'a> {
    member: String,
    rest: &'a str,
    value: Option<Json<'a>>,
}

impl<'a> IdPlace<'a> {
    fn of(pointer: &'a str) -> Option<Self> {
        let path = pointer.strip_prefix('/')?;
        let end = path.find('/').unwrap_or(path.len());
        let member = path[..end].replace("~1", "/").replace("~0", "~");
        Some(Self { member, rest: &path[end..], value: None })
    }

    fn found(&self) -> Option<Json<'a>> {
        self.value?.at_pointer(self.rest)
    }
}

/// The Engine's id for a job: the first pointer that leads to a text or a number. A text that is
/// too long is not an id.
pub fn engine_job_id(value: Json<'_>, id_pointers: &[String]) -> Option<String> {
    job_id_of(id_pointers.iter().filter_map(|pointer| value.at_pointer(pointer)))
}

fn job_id_of<'a>(mut found: impl Iterator<Item = Json<'a>>) -> Option<String> {
    found.find_map(|found| {
        let digits = || found.get().parse::<u64>().ok().map(|number| number.to_string());
        name(found).ok()?.filter(|id| !id.is_empty()).or_else(digits)
    })
}

/// Collects the outputs of a result.
#[derive(Default)]
struct Outputs {
    reported: Vec<ReportedOutput>,
    left_out: LeftOut,
    text_bytes: usize,
}

impl Outputs {
    fn read(&mut self, container: Json<'_>) {
        if let Some(entries) = container.elements() {
            entries.for_each(|entry| self.take(None, entry));
        }
        for (kind, value) in container.members().into_iter().flatten() {
            match member_name(kind) {
                Ok(kind) => match value.elements() {
                    Some(entries) => entries.for_each(|entry| self.take(Some(&kind), entry)),
                    None => self.take(Some(&kind), value),
                },
                Err(bound) => {
                    self.left_out.add(bound, value.elements().map_or(1, Iterator::count));
                }
            }
        }
    }

    fn take(&mut self, kind: Option<&str>, entry: Json<'_>) {
        if self.reported.len() == MAX_OUTPUTS {
            // Only counted: further entries are not read.
            if entry.members().is_some() {
                self.left_out.add(Bound::Outputs, 1);
            }
            return;
        }
        match reported_output(kind, entry) {
            Ok(Some(output)) => {
                let bytes = output.text_bytes();
                if self.text_bytes + bytes > MAX_OUTPUT_TEXT_BYTES {
                    return self.left_out.add(Bound::TextBytes, 1);
                }
                self.text_bytes += bytes;
                self.reported.push(output);
            }
            Ok(None) => {}
            Err(bound) => self.left_out.add(bound, 1),
        }
    }
}

/// Reads one output; `None` if it is not an object.
fn reported_output(kind: Option<&str>, entry: Json<'_>) -> Result<Option<ReportedOutput>, Bound> {
    // The documentation uses both names for a link; `url` comes first.
    const MEMBERS: [&str; 5] = ["extension", "structures", "status", "url", "downloadUrl"];
    let Some([extension, listed, status, url, download_url]) = entry.find(MEMBERS) else {
        return Ok(None);
    };
    let text = |value: Option<Json<'_>>| value.map_or(Ok(None), name);
    let url = match url.map_or(Ok(None), link)? {
        None => download_url.map_or(Ok(None), link)?,
        url => url,
    };
    Ok(Some(ReportedOutput {
        kind: kind.map(str::to_owned),
        extension: text(extension)?,
        structures: listed.map_or(Ok(None), structures)?,
        status: text(status)?,
        url,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        bounds::{MAX_LINK_BYTES, MAX_NAME_CHARS, MAX_STRUCTURES},
        job::Output,
    };

    fn result(body: &str) -> JobResult {
        match read(body.as_bytes(), &["/jobId".into(), "/id".into()]) {
            Reading::Result(result) => result,
            other => panic!("expected a result, got {other:?}"),
        }
    }

    /// A result with one output that has these members in addition to its status.
    fn with(members: &str) -> JobResult {
        result(&format!(
            r#"{{"success":true,"outputFiles":{{"meshes":[{{"status":"Available"{members}}}]}}}}"#
        ))
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
    fn an_entry_beyond_a_bound_is_left_unmatched_and_the_one_at_it_is_not() {
        let of = |count: usize| format!("[{}]", vec!["\"x\""; count].join(","));
        let url = |bytes: usize| format!("https://s/{}", "a".repeat(bytes - 10));
        for (at, beyond, bound) in [
            (
                format!(r#","structures":{}"#, of(MAX_STRUCTURES)),
                format!(r#","structures":{}"#, of(MAX_STRUCTURES + 1)),
                Bound::Structures,
            ),
            (
                format!(r#","structures":["{}"]"#, "ä".repeat(MAX_NAME_CHARS)),
                format!(r#","structures":["{}"]"#, "ä".repeat(MAX_NAME_CHARS + 1)),
                Bound::NameChars,
            ),
            (
                format!(r#","extension":"{}""#, "\\u0001".repeat(MAX_NAME_CHARS)),
                format!(r#","extension":"{}""#, "\\u0001".repeat(MAX_NAME_CHARS + 1)),
                Bound::NameChars,
            ),
            (
                format!(r#","status":"{}""#, "x".repeat(MAX_NAME_CHARS)),
                format!(r#","status":"{}""#, "x".repeat(1_000_000)),
                Bound::NameChars,
            ),
            (
                format!(r#","url":"{}""#, url(MAX_LINK_BYTES)),
                format!(r#","url":"{}""#, url(MAX_LINK_BYTES + 1)),
                Bound::LinkBytes,
            ),
            (
                format!(r#","downloadUrl":"{}""#, url(MAX_LINK_BYTES)),
                format!(r#","downloadUrl":"{}""#, url(1_000_000)),
                Bound::LinkBytes,
            ),
        ] {
            let fine = with(&at);
            assert_eq!((fine.outputs.len(), fine.left_out), (1, LeftOut::default()), "{bound:?}");
            let left_out = LeftOut { entries: 1, bound: Some(bound) };
            let without = with(&beyond);
            assert_eq!((without.outputs.len(), without.left_out), (0, left_out), "{bound:?}");
            let outputs: Vec<Output> = without.apply(&[]);
            assert!(outputs.is_empty() && without.warnings(&outputs).len() == 1);
        }
        let kind = "k".repeat(MAX_NAME_CHARS + 1);
        let body = format!(r#"{{"success":true,"outputFiles":{{"{kind}":[{{}},{{}}],"m":{{}}}}}}"#);
        let of_long_kind = result(&body);
        assert_eq!((of_long_kind.outputs.len(), of_long_kind.left_out.entries), (1, 2));
        let id = "7".repeat(MAX_NAME_CHARS + 1);
        let long_id = result(&format!(r#"{{"success":true,"jobId":"{id}","id":"e-1"}}"#));
        assert_eq!(long_id.engine_job_id.as_deref(), Some("e-1"));
    }

    #[test]
    fn a_body_of_millions_of_members_is_read_one_by_one() {
        let members = r#""":0,"#.repeat(200_000);
        let elements = "0,".repeat(200_000);
        let body = format!(
            r#"{{{members}"success":true,"outputFiles":{{{members}"m":[{elements}{{{members}"status":"Available"}}]}}}}"#
        );
        let read = result(&body);
        assert_eq!((read.outputs.len(), read.outputs[0].status.as_deref()), (1, Some("Available")));
    }

    #[test]
    fn bottomless_nesting_is_read_without_a_crash() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let body = format!(r#"{{"success":false,"outputFiles":{{"meshes":{deep}}},"x":{deep}}}"#);
        assert!(!result(&body).success);
    }
}
