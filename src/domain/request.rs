//! The body of a submission: checked, and rewritten for the Engine.
//!
//! Read by the HTTP layer before anything is stored or sent. The invariant: what the caller wrote
//! reaches the Engine as the same JSON text, save for `finishWebhook`, `finishline` and the
//! defaults that fill a gap.

mod check;

use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use self::check::Check;
use super::{
    bounds::MAX_POINTER_BYTES,
    job::{Input, Output},
    json::{self, Ambiguous, Json},
};

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

impl Violation {
    /// A violation that is fit to be answered: neither text is longer than its bound.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (mut pointer, mut detail) = (pointer.into(), detail.into());
        for text in [&mut pointer, &mut detail] {
            text.truncate(text.floor_char_boundary(MAX_POINTER_BYTES));
        }
        Self { pointer, detail }
    }
}

/// A body that passed.
#[derive(Debug)]
pub struct JobRequest {
    /// Members for the Engine in the caller's order and words, without `finishWebhook` and
    /// `finishline`, separated by commas: one text, since there may be very many.
    members: String,
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

/// Members of a body that are read here, beside its files.
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
    /// Reads a caller's body. The fingerprint is of the body as given, before defaults.
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

    /// The body for the Engine: the caller's members, and our callback address as `finishWebhook`.
    pub fn engine_body(&self, callback_url: &str) -> Vec<u8> {
        let mut body = self.members.clone();
        push_member(&mut body, "\"finishWebhook\"", raw(callback_url).get());
        object(body).into_bytes()
    }

    /// The body to keep: as [`Self::engine_body`], but with the caller's own `finishWebhook`. It is
    /// taken out of the request.
    pub fn take_stored_body(&mut self) -> Box<RawValue> {
        let mut body = std::mem::take(&mut self.members);
        if let Some(url) = &self.finish_webhook {
            push_member(&mut body, "\"finishWebhook\"", raw(url.as_str()).get());
        }
        RawValue::from_string(object(body)).expect("an object made of JSON members is JSON")
    }

    /// Bytes that it holds, roughly.
    pub fn held_bytes(&self) -> usize {
        // The names in it take a part of its own length once more, and four bytes each.
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

/// The Engine's body for a request that was stored earlier ([`JobRequest::take_stored_body`]).
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

/// Adds a member as it is written, name in quotes.
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

    const MINIMAL: &str = r#"{"inputFiles":{"cbct":{"extension":".dcm"}},
        "outputFiles":{"meshes":[{"extension":".stl","structures":["mandible"]}]}}"#;

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
}
