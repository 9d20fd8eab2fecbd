//! Collects what is wrong with a body while it is read.
//!
//! Used only by [`super::JobRequest::parse`].

use url::Url;

use super::Violation;
use crate::domain::{
    bounds::{self, Bound, MAX_INPUTS, MAX_OUTPUTS, MAX_VIOLATIONS, link, member_name, name},
    job::{Input, InputState, Output},
    json::{Json, Name, pointer_token},
};

/// Collects the violations of a body, up to [`MAX_VIOLATIONS`], so that the caller learns of all of
/// them at once.
#[derive(Default)]
pub(super) struct Check {
    pub(super) violations: Vec<Violation>,
}

impl Check {
    pub(super) fn refuse(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(pointer, detail));
        }
    }

    fn is_full(&self) -> bool {
        self.violations.len() >= MAX_VIOLATIONS
    }

    /// The value, or a violation if it exceeds a bound.
    pub(super) fn within<T>(&mut self, pointer: &str, read: Result<T, Bound>) -> Option<T> {
        read.map_err(|bound| self.refuse(pointer, format!("at most {}", bound.describe()))).ok()
    }

    pub(super) fn inputs(&mut self, value: Option<Json<'_>>) -> Vec<Input> {
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

    pub(super) fn outputs(&mut self, value: Option<Json<'_>>) -> Vec<Output> {
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

    /// Unknown kinds are passed on unchanged; only their URLs and the bounds are checked.
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

    /// The members of an object, which must have at least one.
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

    /// Reads an optional text as a name.
    pub(super) fn optional_name(
        &mut self,
        pointer: &str,
        value: Option<Json<'_>>,
    ) -> Option<String> {
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

    pub(super) fn url(&mut self, pointer: &str, value: Json<'_>) -> Option<Url> {
        let text = self.within(pointer, link(value))?;
        let url = text.and_then(|text| Url::parse(&text).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            self.refuse(pointer, "expected an absolute http or https URL");
        }
        url
    }

    pub(super) fn reference(&mut self, value: Option<Json<'_>>) -> Option<String> {
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
