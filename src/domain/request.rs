//! The body of a submission: checked, and rewritten for the Engine.
//!
//! Read by the HTTP layer before anything is stored or sent. The invariant: what the caller wrote
//! reaches the Engine as the same JSON text, save for `finishWebhook`, `finishline` and the
//! defaults that fill a gap.

use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use super::{
    job::{Input, InputState, Output},
    json::{self, Ambiguous},
};

/// Characters of a `finishline.reference`: a label, not a document.
const MAX_REFERENCE_CHARS: usize = 256;

/// What fills `cloudPackage` and `endUserId` when the caller leaves them out.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub cloud_package: Option<String>,
    pub end_user_id: Option<String>,
}

/// Why a body is not a submission.
#[derive(Debug)]
pub enum Refusal {
    /// Not JSON, or JSON that cannot be read in one way only.
    Malformed(String),
    Invalid(Vec<Violation>),
}

/// One thing wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// RFC 6901 pointer into the body; empty for the body itself.
    pub pointer: String,
    pub detail: String,
}

/// A body that passed.
#[derive(Debug)]
pub struct JobRequest {
    /// Members for the Engine in the caller's order, without `finishWebhook` and `finishline`.
    fields: Vec<(String, Box<RawValue>)>,
    /// The caller's own webhook: the job's relay target.
    pub finish_webhook: Option<Url>,
    pub reference: Option<String>,
    pub end_user_id: Option<String>,
    pub cloud_package: Option<String>,
    pub external_job_id: Option<String>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub warnings: Vec<String>,
    /// Equal for equal JSON values; what an `Idempotency-Key` is compared by.
    pub fingerprint: [u8; 32],
}

impl JobRequest {
    /// Reads a caller's body. The fingerprint is of the body as given, before defaults.
    pub fn parse(body: &[u8], defaults: &Defaults) -> Result<Self, Refusal> {
        let value = json::parse(body).map_err(Refusal::Malformed)?;
        let Some(members) = json::members(value) else {
            return Err(Refusal::Invalid(vec![Violation {
                pointer: String::new(),
                detail: "expected an object: the Engine's job body".into(),
            }]));
        };
        let fingerprint = json::fingerprint(value).map_err(|ambiguous| match ambiguous {
            Ambiguous::RepeatedName { pointer } => Refusal::Invalid(vec![Violation {
                pointer,
                detail: "this name stands here more than once".into(),
            }]),
            Ambiguous::TooDeep => {
                Refusal::Malformed(format!("nested deeper than {} levels", json::MAX_DEPTH))
            }
        })?;

        let mut check = Check::default();
        let inputs = check.inputs(json::member(&members, "inputFiles"));
        let outputs = check.outputs(json::member(&members, "outputFiles"));
        let finish_webhook = match json::member(&members, "finishWebhook") {
            Some(value) if value.get() != "null" => check.url("/finishWebhook", value),
            _ => None,
        };
        let reference = check.reference(json::member(&members, "finishline"));
        let mut request = Self {
            finish_webhook,
            reference,
            end_user_id: check.optional_text(&members, "endUserId"),
            cloud_package: check.optional_text(&members, "cloudPackage"),
            external_job_id: check.optional_text(&members, "externalJobId"),
            inputs,
            outputs,
            warnings: Vec::new(),
            fingerprint,
            fields: members
                .iter()
                .filter(|(name, _)| name != "finishWebhook" && name != "finishline")
                .map(|(name, value)| (name.clone(), (*value).to_owned()))
                .collect(),
        };
        if !check.violations.is_empty() {
            return Err(Refusal::Invalid(check.violations));
        }
        if request.fields.iter().any(|(name, _)| name == "externalJobId") {
            request.warnings.push(
                "externalJobId is deprecated by the Engine and will be removed; \
                 use finishline.reference for a label of your own"
                    .into(),
            );
        }
        request.fill("cloudPackage", &defaults.cloud_package);
        request.fill("endUserId", &defaults.end_user_id);
        Ok(request)
    }

    /// The body for the Engine: the caller's members, and our callback address as `finishWebhook`.
    pub fn engine_body(&self, callback_url: &str) -> Vec<u8> {
        engine_body(self.fields.iter().map(|(name, value)| (name.as_str(), &**value)), callback_url)
    }

    /// The body to keep: as [`Self::engine_body`], but with the caller's own `finishWebhook`.
    pub fn stored_body(&self) -> Box<RawValue> {
        let mut members: Vec<String> =
            self.fields.iter().map(|(name, value)| member(name, value)).collect();
        if let Some(url) = &self.finish_webhook {
            members.push(member("finishWebhook", &raw(url.as_str())));
        }
        let text = object(&members);
        RawValue::from_string(text).expect("an object made of JSON members is JSON")
    }

    fn fill(&mut self, name: &str, default: &Option<String>) {
        let Some(default) = default else { return };
        if self.fields.iter().any(|(field, _)| field == name) {
            return;
        }
        self.fields.push((name.into(), raw(default)));
        match name {
            "cloudPackage" => self.cloud_package = Some(default.clone()),
            _ => self.end_user_id = Some(default.clone()),
        }
    }
}

/// The Engine's body for a request that was stored earlier ([`JobRequest::stored_body`]).
pub fn engine_body_of_stored(stored: &RawValue, callback_url: &str) -> Vec<u8> {
    let members = json::members(stored).unwrap_or_default();
    let fields = members.iter().filter(|(name, _)| name != "finishWebhook");
    engine_body(fields.map(|(name, value)| (name.as_str(), *value)), callback_url)
}

fn engine_body<'a>(
    fields: impl Iterator<Item = (&'a str, &'a RawValue)>,
    callback_url: &str,
) -> Vec<u8> {
    let mut members: Vec<String> = fields.map(|(name, value)| member(name, value)).collect();
    members.push(member("finishWebhook", &raw(callback_url)));
    object(&members).into_bytes()
}

fn member(name: &str, value: &RawValue) -> String {
    format!("{}:{}", raw(name).get(), value.get())
}

fn object(members: &[String]) -> String {
    format!("{{{}}}", members.join(","))
}

fn raw(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a string is JSON")
}

/// Collects everything wrong with a body, so that the caller hears of it all at once.
#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
}

impl Check {
    fn refuse(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.violations.push(Violation { pointer: pointer.into(), detail: detail.into() });
    }

    fn inputs(&mut self, value: Option<&RawValue>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (name, value) in self.filled_object("/inputFiles", value) {
            let pointer = format!("/inputFiles/{}", json::pointer_token(&name));
            let Some(entry) = json::members(value) else {
                self.refuse(pointer, "expected an object with an extension");
                continue;
            };
            let extension = json::member(&entry, "extension").and_then(json::text);
            let Some(extension) = extension.filter(|text| text.len() > 1 && text.starts_with('.'))
            else {
                let detail = "expected a text that begins with a dot, such as \".dcm\"";
                self.refuse(format!("{pointer}/extension"), detail);
                continue;
            };
            let download_url = self.optional_url(&pointer, &entry, "downloadUrl");
            self.optional_url(&pointer, &entry, "uploadUrl");
            let state = match download_url {
                Some(_) => InputState::Provided,
                None => InputState::Awaiting,
            };
            inputs.push(Input { name, extension, upload_url: None, notify_url: None, state });
        }
        inputs
    }

    fn outputs(&mut self, value: Option<&RawValue>) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (kind, value) in self.filled_object("/outputFiles", value) {
            let pointer = format!("/outputFiles/{}", json::pointer_token(&kind));
            match json::elements(value) {
                Some(entries) => {
                    for (index, entry) in (0u32..).zip(entries) {
                        outputs.push(self.output(
                            &format!("{pointer}/{index}"),
                            &kind,
                            index,
                            entry,
                        ));
                    }
                }
                None => outputs.push(self.output(&pointer, &kind, 0, value)),
            }
        }
        outputs
    }

    /// Kinds we do not know are passed on whatever they hold; only their URLs are looked at.
    fn output(&mut self, pointer: &str, kind: &str, index: u32, value: &RawValue) -> Output {
        let entry = json::members(value).unwrap_or_default();
        self.optional_url(pointer, &entry, "uploadUrl");
        self.optional_url(pointer, &entry, "downloadUrl");
        let structures = json::member(&entry, "structures").and_then(json::elements);
        Output {
            name: format!("{kind}-{index}"),
            kind: kind.to_owned(),
            index: Some(index),
            extension: json::member(&entry, "extension").and_then(json::text),
            structures: structures.unwrap_or_default().into_iter().filter_map(json::text).collect(),
            status: None,
            url: None,
            file: None,
        }
    }

    fn filled_object<'a>(
        &mut self,
        pointer: &str,
        value: Option<&'a RawValue>,
    ) -> Vec<(String, &'a RawValue)> {
        let members = value.and_then(json::members).unwrap_or_default();
        if members.is_empty() {
            self.refuse(pointer, "expected an object with at least one entry");
        }
        members
    }

    fn optional_text(&mut self, members: &[(String, &RawValue)], name: &str) -> Option<String> {
        let value = json::member(members, name).filter(|value| value.get() != "null")?;
        let text = json::text(value);
        if text.is_none() {
            self.refuse(format!("/{name}"), "expected a text");
        }
        text
    }

    fn optional_url(
        &mut self,
        pointer: &str,
        entry: &[(String, &RawValue)],
        name: &str,
    ) -> Option<Url> {
        let value = json::member(entry, name).filter(|value| value.get() != "null")?;
        self.url(&format!("{pointer}/{name}"), value)
    }

    fn url(&mut self, pointer: &str, value: &RawValue) -> Option<Url> {
        let url = json::text(value).and_then(|text| Url::parse(&text).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            self.refuse(pointer, "expected an absolute http or https URL");
        }
        url
    }

    fn reference(&mut self, value: Option<&RawValue>) -> Option<String> {
        let value = value.filter(|value| value.get() != "null")?;
        let Some(members) = json::members(value) else {
            self.refuse("/finishline", "expected an object such as {\"reference\": \"case-42\"}");
            return None;
        };
        let mut reference = None;
        for (name, value) in members {
            let pointer = format!("/finishline/{}", json::pointer_token(&name));
            if name != "reference" {
                self.refuse(pointer, "unknown: only reference may stand here");
                continue;
            }
            if value.get() == "null" {
                continue;
            }
            reference =
                json::text(value).filter(|text| text.chars().count() <= MAX_REFERENCE_CHARS);
            if reference.is_none() {
                let detail = format!("expected a text of at most {MAX_REFERENCE_CHARS} characters");
                self.refuse(pointer, detail);
            }
        }
        reference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"inputFiles":{"cbct":{"extension":".dcm"}},
        "outputFiles":{"meshes":[{"extension":".stl","structures":["mandible"]}]}}"#;

    fn violations(body: &str) -> Vec<String> {
        match JobRequest::parse(body.as_bytes(), &Defaults::default()) {
            Err(Refusal::Invalid(found)) => found.into_iter().map(|one| one.pointer).collect(),
            other => panic!("expected violations, got {other:?}"),
        }
    }

    #[test]
    fn unknown_fields_and_the_digits_of_numbers_reach_the_engine_untouched() {
        let body = r#"{"zzz":{"n":1.10,"big":123456789012345678901234567890,"x":1e999},"inputFiles":
            {"future":{"extension":".xyz","k":[null]}},"outputFiles":{"report":{"a":true}},
            "finishline":{"reference":"case-42"},"finishWebhook":"https://app.example/hook"}"#;
        let request = JobRequest::parse(body.as_bytes(), &Defaults::default()).expect("valid");
        let sent = String::from_utf8(request.engine_body("https://us.example/cb")).expect("UTF-8");
        assert!(sent.starts_with(
            r#"{"zzz":{"n":1.10,"big":123456789012345678901234567890,"x":1e999},"inputFiles":"#
        ));
        assert!(sent.ends_with(r#","finishWebhook":"https://us.example/cb"}"#));
        assert!(!sent.contains("case-42") && !sent.contains("app.example"));
        let again = engine_body_of_stored(&request.stored_body(), "https://us.example/cb");
        assert_eq!(again, sent.into_bytes());
    }

    #[test]
    fn defaults_fill_only_what_is_absent() {
        let defaults =
            Defaults { cloud_package: Some("prod".into()), end_user_id: Some("u".into()) };
        let body = MINIMAL.replacen('{', r#"{"endUserId":"mine","#, 1);
        let request = JobRequest::parse(body.as_bytes(), &defaults).expect("valid");
        assert_eq!(request.end_user_id.as_deref(), Some("mine"));
        assert_eq!(request.cloud_package.as_deref(), Some("prod"));
        assert!(request.stored_body().get().contains(r#""cloudPackage":"prod""#));
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
}
