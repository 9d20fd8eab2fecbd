//! What is checked of a body's members: their form, and the bounds.
//!
//! Called by [`super::JobRequest::parse`]. The invariant: what is said of a body is bounded, however
//! much is wrong with it.

use url::Url;

use super::Violation;
use crate::domain::{
    bounds::{self, Bound, MAX_INPUTS, MAX_OUTPUTS, MAX_VIOLATIONS, link, member_name, name},
    job::{Input, InputState, Output},
    json::{Json, Name, pointer_token},
};

/// Collects what is wrong with a body, so that the caller hears of it at once: up to
/// [`MAX_VIOLATIONS`] things.
#[derive(Default)]
pub(super) struct Check {
    pub violations: Vec<Violation>,
}

impl Check {
    fn refuse(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(pointer, detail));
        }
    }

    fn is_full(&self) -> bool {
        self.violations.len() >= MAX_VIOLATIONS
    }

    /// The value, unless it is beyond a bound.
    fn within<T>(&mut self, pointer: &str, read: Result<T, Bound>) -> Option<T> {
        read.map_err(|bound| self.refuse(pointer, format!("at most {}", bound.describe()))).ok()
    }

    pub fn inputs(&mut self, value: Option<Json<'_>>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (number, (name, value)) in self.filled_object("/inputFiles", value).enumerate() {
            if number == MAX_INPUTS || self.is_full() {
                self.refuse("/inputFiles", format!("at most {}", Bound::Inputs.describe()));
                break;
            }
            let Some(name) = self.within("/inputFiles", member_name(name)) else { continue };
            let pointer = format!("/inputFiles/{}", pointer_token(&name));
            let found = value.find(["extension", "downloadUrl", "uploadUrl"]);
            let Some([extension, download_url, upload_url]) = found else {
                self.refuse(pointer, "expected an object with an extension");
                continue;
            };
            let Some(extension) = self.extension(&format!("{pointer}/extension"), extension) else {
                continue;
            };
            let download_url = self.optional_url(&format!("{pointer}/downloadUrl"), download_url);
            self.optional_url(&format!("{pointer}/uploadUrl"), upload_url);
            let state = match download_url {
                Some(_) => InputState::Provided,
                None => InputState::Awaiting,
            };
            inputs.push(Input { name, extension, upload_url: None, notify_url: None, state });
        }
        inputs
    }

    fn extension(&mut self, pointer: &str, value: Option<Json<'_>>) -> Option<String> {
        let text = self.within(pointer, value.map_or(Ok(None), name))?;
        let extension = text.filter(|text| text.len() > 1 && text.starts_with('.'));
        if extension.is_none() {
            self.refuse(pointer, "expected a text that begins with a dot, such as \".dcm\"");
        }
        extension
    }

    pub fn outputs(&mut self, value: Option<Json<'_>>) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (kind, value) in self.filled_object("/outputFiles", value) {
            if self.is_full() {
                break;
            }
            let Some(kind) = self.within("/outputFiles", member_name(kind)) else { continue };
            let pointer = format!("/outputFiles/{}", pointer_token(&kind));
            let is_one = value.elements().is_none();
            let entries = value.elements().into_iter().flatten().chain(is_one.then_some(value));
            for (index, entry) in (0u32..).zip(entries) {
                if outputs.len() == MAX_OUTPUTS || self.is_full() {
                    self.refuse("/outputFiles", format!("at most {}", Bound::Outputs.describe()));
                    return outputs;
                }
                let pointer = if is_one { pointer.clone() } else { format!("{pointer}/{index}") };
                outputs.extend(self.output(&pointer, &kind, index, entry));
            }
        }
        outputs
    }

    /// Kinds we do not know are passed on whatever they hold; only their URLs and the bounds are
    /// looked at.
    fn output(&mut self, pointer: &str, kind: &str, index: u32, value: Json<'_>) -> Option<Output> {
        let [extension, structures, upload_url, download_url] =
            value.find(["extension", "structures", "uploadUrl", "downloadUrl"]).unwrap_or_default();
        self.optional_url(&format!("{pointer}/uploadUrl"), upload_url);
        self.optional_url(&format!("{pointer}/downloadUrl"), download_url);
        let extension =
            self.within(&format!("{pointer}/extension"), extension.map_or(Ok(None), name));
        let structures = self.within(
            &format!("{pointer}/structures"),
            structures.map_or(Ok(None), bounds::structures),
        );
        Some(Output {
            name: format!("{kind}-{index}"),
            kind: kind.to_owned(),
            index: Some(index),
            extension: extension?,
            structures: structures?.unwrap_or_default(),
            status: None,
            url: None,
            file: None,
        })
    }

    /// The members of an object that has one at least.
    fn filled_object<'a>(
        &mut self,
        pointer: &str,
        value: Option<Json<'a>>,
    ) -> impl Iterator<Item = (Name<'a>, Json<'a>)> + use<'a> {
        let mut members = value.and_then(Json::members).into_iter().flatten().peekable();
        if members.peek().is_none() {
            self.refuse(pointer, "expected an object with at least one entry");
        }
        members
    }

    /// A text that is a name.
    pub fn optional_name(&mut self, pointer: &str, value: Option<Json<'_>>) -> Option<String> {
        let value = value.filter(|value| !value.is_null())?;
        let text = self.within(pointer, name(value))?;
        if text.is_none() {
            self.refuse(pointer, "expected a text");
        }
        text
    }

    fn optional_url(&mut self, pointer: &str, value: Option<Json<'_>>) -> Option<Url> {
        self.url(pointer, value.filter(|value| !value.is_null())?)
    }

    pub fn url(&mut self, pointer: &str, value: Json<'_>) -> Option<Url> {
        let text = self.within(pointer, link(value))?;
        let url = text.and_then(|text| Url::parse(&text).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            self.refuse(pointer, "expected an absolute http or https URL");
        }
        url
    }

    pub fn reference(&mut self, value: Option<Json<'_>>) -> Option<String> {
        let value = value.filter(|value| !value.is_null())?;
        let Some(members) = value.members() else {
            self.refuse("/finishline", "expected an object such as {\"reference\": \"case-42\"}");
            return None;
        };
        let mut reference = None;
        for (name, value) in members {
            if name.is("reference") {
                reference = self.optional_name("/finishline/reference", Some(value));
                continue;
            }
            if self.is_full() {
                break;
            }
            let pointer = match member_name(name) {
                Ok(name) => format!("/finishline/{}", pointer_token(&name)),
                Err(_) => "/finishline".to_owned(),
            };
            self.refuse(pointer, "unknown: only reference may stand here");
        }
        reference
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Defaults, JobRequest, Refusal},
        *,
    };

    const MINIMAL: &str = r#"{"inputFiles":{"cbct":{"extension":".dcm"}},
        "outputFiles":{"meshes":[{"extension":".stl","structures":["mandible"]}]}}"#;

    fn violations(body: &str) -> Vec<String> {
        match JobRequest::parse(body.as_bytes(), &Defaults::default()) {
            Err(Refusal::Invalid(found)) => found.into_iter().map(|one| one.pointer).collect(),
            other => panic!("expected violations, got {other:?}"),
        }
    }

    #[test]
    fn every_fault_of_a_body_is_named_by_its_pointer() {
        let body = r#"{"inputFiles":{"a/b":{"extension":"dcm"},"c":7,
            "d":{"extension":".dcm","downloadUrl":"ftp://x/y"}},
            "outputFiles":{"meshes":[{"uploadUrl":"nope"}]},"endUserId":5,
            "finishWebhook":"mailto:a@b","finishline":{"referense":"x"}}"#;
        assert_eq!(
            violations(body),
            [
                "/inputFiles/a~1b/extension",
                "/inputFiles/c",
                "/inputFiles/d/downloadUrl",
                "/outputFiles/meshes/0/uploadUrl",
                "/finishWebhook",
                "/finishline/referense",
                "/endUserId",
            ]
        );
        assert_eq!(violations("{}"), ["/inputFiles", "/outputFiles"]);
        assert_eq!(violations("[]"), [""]);
        let repeated = MINIMAL.replacen('{', r#"{"options":{"a":1,"a":2},"#, 1);
        assert_eq!(violations(&repeated), ["/options/a"]);
    }

    /// What is wrong with [`MINIMAL`] with one part of it replaced.
    fn violations_with(part: &str, by: &str) -> Vec<String> {
        assert!(MINIMAL.contains(part));
        violations(&MINIMAL.replacen(part, by, 1))
    }

    fn is_taken(body: &str) -> bool {
        JobRequest::parse(body.as_bytes(), &Defaults::default()).is_ok()
    }

    #[test]
    fn a_body_beyond_a_bound_is_refused_where_it_is_and_one_at_it_is_not() {
        let name = |chars: usize| "ä".repeat(chars);
        let link = |bytes: usize| format!("https://s/{}", "a".repeat(bytes - 10));
        let inputs = |count: usize| {
            let one = |number| format!(r#""i{number}":{{"extension":".d"}}"#);
            format!("{{{}}}", (0..count).map(one).collect::<Vec<_>>().join(","))
        };
        let list = |count: usize, one: &str| format!("[{}]", vec![one; count].join(","));
        let (chars, bytes) = (bounds::MAX_NAME_CHARS, bounds::MAX_LINK_BYTES);
        for (part, at, beyond, pointer) in [
            (
                r#"{"cbct":{"extension":".dcm"}}"#,
                inputs(MAX_INPUTS),
                inputs(MAX_INPUTS + 1),
                "/inputFiles",
            ),
            (
                r#""cbct""#,
                format!("{:?}", name(chars)),
                format!("{:?}", name(chars + 1)),
                "/inputFiles",
            ),
            (
                r#"".dcm""#,
                format!("\".{}\"", name(chars - 1)),
                format!("\".{}\"", name(chars)),
                "/inputFiles/cbct/extension",
            ),
            (
                r#"".dcm""#,
                format!(r#"".d","downloadUrl":"{}""#, link(bytes)),
                format!(r#"".d","downloadUrl":"{}""#, link(bytes + 1)),
                "/inputFiles/cbct/downloadUrl",
            ),
            (
                r#"[{"extension":".stl","structures":["mandible"]}]"#,
                list(MAX_OUTPUTS, "0"),
                list(MAX_OUTPUTS + 1, "0"),
                "/outputFiles",
            ),
            (
                r#""meshes":"#,
                format!(r#""more":{},"meshes":"#, list(MAX_OUTPUTS - 1, "{}")),
                format!(r#""more":{},"meshes":"#, list(MAX_OUTPUTS, "{}")),
                "/outputFiles",
            ),
            (
                r#""meshes""#,
                format!("{:?}", name(chars)),
                format!("{:?}", name(chars + 1)),
                "/outputFiles",
            ),
            (
                r#"["mandible"]"#,
                list(bounds::MAX_STRUCTURES, "\"x\""),
                list(bounds::MAX_STRUCTURES + 1, "\"x\""),
                "/outputFiles/meshes/0/structures",
            ),
            (
                r#""mandible""#,
                format!("{:?}", name(chars)),
                format!("{:?}", name(chars + 1)),
                "/outputFiles/meshes/0/structures",
            ),
            (
                r#"".stl""#,
                format!("{:?}", name(chars)),
                format!("{:?}", name(chars + 1)),
                "/outputFiles/meshes/0/extension",
            ),
            (
                r#"".stl""#,
                format!(r#"".s","uploadUrl":"{}""#, link(bytes)),
                format!(r#"".s","uploadUrl":"{}""#, link(bytes + 1)),
                "/outputFiles/meshes/0/uploadUrl",
            ),
        ] {
            assert!(is_taken(&MINIMAL.replacen(part, &at, 1)), "{pointer}");
            assert_eq!(violations_with(part, &beyond), [pointer]);
        }
        for (member, pointer) in [
            (r#""endUserId":"*""#, "/endUserId"),
            (r#""cloudPackage":"*""#, "/cloudPackage"),
            (r#""externalJobId":"*""#, "/externalJobId"),
            (r#""finishline":{"reference":"*"}"#, "/finishline/reference"),
        ] {
            let with =
                |text: &str| MINIMAL.replacen('{', &format!("{{{},", member.replace('*', text)), 1);
            assert!(is_taken(&with(&name(chars))), "{pointer}");
            assert_eq!(violations(&with(&name(chars + 1))), [pointer]);
            assert_eq!(violations(&with(&name(100_000))), [pointer]);
        }
    }

    #[test]
    fn what_is_said_of_a_hostile_body_is_bounded() {
        let inputs: Vec<String> = (0..5_000).map(|number| format!(r#""{number}":0"#)).collect();
        let outputs = vec![r#"{"uploadUrl":"x"}"#; 5_000].join(",");
        let body = format!(
            r#"{{"inputFiles":{{{}}},"outputFiles":{{"meshes":[{outputs}]}},"endUserId":0}}"#,
            inputs.join(",")
        );
        assert_eq!(violations(&body).len(), MAX_VIOLATIONS);
        let name = "n".repeat(500_000);
        let repeated = MINIMAL.replacen('{', &format!(r#"{{"{name}":[{{"a":1,"a":2}}],"#), 1);
        assert!(
            violations(&repeated).iter().all(|pointer| pointer.len() <= bounds::MAX_POINTER_BYTES)
        );
    }
}
