//! The body of a submission: checked, and rewritten for the Engine.
//!
//! Read by the HTTP layer before anything is stored or sent. Invariant: the caller's body reaches
//! the Engine as the same JSON text, except for `finishWebhook`, `finishline` and the defaults of
//! missing members.

mod check;

use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use self::check::Check;
use super::{
    bounds::MAX_POINTER_BYTES,
    job::{Input, Output},
    json::{self, Ambiguous, Json},
};

/// The values of `cloudPackage` and `endUserId` if the caller leaves them out.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub cloud_package: Option<String>,
    pub end_user_id: Option<String>,
}

/// The reason why a body is not a submission.
#[derive(Debug)]
pub enum Refusal {
    /// Not JSON, or JSON that is nested too deep.
    Malformed(String),
    Invalid(Vec<Violation>),
}

/// One fault of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// RFC 6901 pointer into the body; empty for the body itself.
    pub pointer: String,
    pub detail: String,
}

impl Violation {
    /// Builds a violation for an answer: both texts are cut to their bound.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (mut pointer, mut detail) = (pointer.into(), detail.into());
        for text in [&mut pointer, &mut detail] {
            text.truncate(text.floor_char_boundary(MAX_POINTER_BYTES));
        }
        Self { pointer, detail }
    }
}

/// A valid body.
#[derive(Debug)]
pub struct JobRequest {
    /// Members for the Engine in the caller's order and spelling, without `finishWebhook` and
    /// `finishline`, separated by commas: one text, because there may be very many.
    members: String,
    /// The caller's own webhook, which becomes the job's relay target.
    pub finish_webhook: Option<Url>,
    pub reference: Option<String>,
    pub end_user_id: Option<String>,
    pub cloud_package: Option<String>,
    pub external_job_id: Option<String>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub warnings: Vec<String>,
    /// Equal for equal JSON values; used to compare the bodies of an `Idempotency-Key`.
    pub fingerprint: [u8; 32],
}

/// The members of a body that are read here.
const KNOWN: [&str; 7] = [
    "inputFiles",
    "outputFiles",
    "finishWebhook",
    "finishline",
    "endUserId",
    "cloudPackage",
    "externalJobId",
];

impl JobRequest {
    /// Reads a caller's body. The fingerprint covers the body as given, before defaults.
    ///
    /// # Errors
    /// [`Refusal`], with every violation up to the bound.
    pub fn parse(body: &[u8], defaults: &Defaults) -> Result<Self, Refusal> {
        let value = json::parse(body).map_err(Refusal::Malformed)?;
        let Some(known) = value.find(KNOWN) else {
            let detail = "expected an object: the Engine's job body";
            return Err(Refusal::Invalid(vec![Violation::new("", detail)]));
        };
        let fingerprint = json::fingerprint(value).map_err(|ambiguous| match ambiguous {
            Ambiguous::RepeatedName { pointer } => Refusal::Invalid(vec![Violation::new(
                pointer,
                "this name stands here more than once",
            )]),
            Ambiguous::TooDeep => {
                Refusal::Malformed(format!("nested deeper than {} levels", json::MAX_DEPTH))
            }
        })?;

        let [inputs, outputs, finish_webhook, finishline, end_user, package, external] = known;
        let mut check = Check::default();
        let mut request = Self {
            inputs: check.inputs(inputs),
            outputs: check.outputs(outputs),
            finish_webhook: finish_webhook
                .filter(|value| !value.is_null())
                .and_then(|value| check.url("/finishWebhook", value)),
            reference: check.reference(finishline),
            end_user_id: check.optional_name("/endUserId", end_user),
            cloud_package: check.optional_name("/cloudPackage", package),
            external_job_id: check.optional_name("/externalJobId", external),
            warnings: Vec::new(),
            fingerprint,
            members: String::new(),
        };
        if !check.violations.is_empty() {
            return Err(Refusal::Invalid(check.violations));
        }
        if external.is_some() {
            request.warnings.push(
                "externalJobId is deprecated by the Engine and will be removed; \
                 use finishline.reference for a label of your own"
                    .into(),
            );
        }
        request.members.reserve_exact(value.get().len());
        for (name, value) in value.members().into_iter().flatten() {
            if !name.is("finishWebhook") && !name.is("finishline") {
                push_member(&mut request.members, name.get(), value.get());
            }
        }
        request.fill("cloudPackage", package, &defaults.cloud_package);
        request.fill("endUserId", end_user, &defaults.end_user_id);
        Ok(request)
    }

    /// The body for the Engine: the caller's members, with our callback address as `finishWebhook`.
    pub fn engine_body(&self, callback_url: &str) -> Vec<u8> {
        let mut body = self.members.clone();
        push_member(&mut body, "\"finishWebhook\"", raw(callback_url).get());
        object(body).into_bytes()
    }

    /// Moves out the body to store: like [`Self::engine_body`], but with the caller's own
    /// `finishWebhook`.
    pub fn take_stored_body(&mut self) -> Box<RawValue> {
        let mut body = std::mem::take(&mut self.members);
        if let Some(url) = &self.finish_webhook {
            push_member(&mut body, "\"finishWebhook\"", raw(url.as_str()).get());
        }
        RawValue::from_string(object(body)).expect("an object made of JSON members is JSON")
    }

    /// The approximate memory use in bytes.
    pub fn held_bytes(&self) -> usize {
        // Names inside it are stored a second time, with four more bytes each.
        self.members.len() * 3
            + (self.inputs.len() + self.outputs.len()) * super::result::OUTPUT_BYTES
    }

    fn fill(&mut self, name: &str, given: Option<Json<'_>>, default: &Option<String>) {
        let Some(default) = default.as_ref().filter(|_| given.is_none()) else { return };
        push_member(&mut self.members, raw(name).get(), raw(default).get());
        match name {
            "cloudPackage" => self.cloud_package = Some(default.clone()),
            _ => self.end_user_id = Some(default.clone()),
        }
    }
}

/// The body for the Engine, from a stored request ([`JobRequest::take_stored_body`]).
pub fn engine_body_of_stored(stored: &RawValue, callback_url: &str) -> Vec<u8> {
    let mut body = String::with_capacity(stored.get().len());
    for (name, value) in Json::from(stored).members().into_iter().flatten() {
        if !name.is("finishWebhook") {
            push_member(&mut body, name.get(), value.get());
        }
    }
    push_member(&mut body, "\"finishWebhook\"", raw(callback_url).get());
    object(body).into_bytes()
}

/// Adds a member; the name is given in quotes.
fn push_member(members: &mut String, name: &str, value: &str) {
    if !members.is_empty() {
        members.push(',');
    }
    members.push_str(name);
    members.push(':');
    members.push_str(value);
}

fn object(mut members: String) -> String {
    members.insert(0, '{');
    members.push('}');
    members
}

fn raw(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a string is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::bounds::{self, MAX_INPUTS, MAX_OUTPUTS, MAX_VIOLATIONS};

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
        let mut request = JobRequest::parse(body.as_bytes(), &Defaults::default()).expect("valid");
        let sent = String::from_utf8(request.engine_body("https://us.example/cb")).expect("UTF-8");
        assert!(sent.starts_with(
            r#"{"zzz":{"n":1.10,"big":123456789012345678901234567890,"x":1e999},"inputFiles":"#
        ));
        assert!(sent.ends_with(r#","finishWebhook":"https://us.example/cb"}"#));
        assert!(!sent.contains("case-42") && !sent.contains("app.example"));
        let again = engine_body_of_stored(&request.take_stored_body(), "https://us.example/cb");
        assert_eq!(again, sent.into_bytes());
    }

    #[test]
    fn defaults_fill_only_what_is_absent() {
        let defaults =
            Defaults { cloud_package: Some("prod".into()), end_user_id: Some("u".into()) };
        let body = MINIMAL.replacen('{', r#"{"endUserId":"mine","#, 1);
        let mut request = JobRequest::parse(body.as_bytes(), &defaults).expect("valid");
        assert_eq!(request.end_user_id.as_deref(), Some("mine"));
        assert_eq!(request.cloud_package.as_deref(), Some("prod"));
        assert!(request.take_stored_body().get().contains(r#""cloudPackage":"prod""#));
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

    /// The violations of [`MINIMAL`] with one part of it replaced.
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
        assert!(violations(&repeated).iter().all(|pointer| pointer.len() <= MAX_POINTER_BYTES));
    }
}
