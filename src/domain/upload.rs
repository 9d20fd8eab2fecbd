//! Uploads: the address of an input, and when the Engine is notified.
//!
//! Decided here, executed by `http`. Invariant: the Engine is notified of inputs only when all
//! inputs that share the notify address are uploaded.

use jiff::Timestamp;
use serde_json::json;

use super::{
    event::{EventType, NewEvent},
    ids::JobId,
    job::{Input, InputState, Job, JobStatus},
    storage::StorageRefusal,
};

/// The reason why an input cannot be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUpload {
    /// The job has no input of that name.
    Unknown,
    /// It has a `downloadUrl`, from which the Engine downloads it.
    Provided,
    /// The Engine was notified of it and may be working on it: with other bytes under the same
    /// name, nobody would know which ones were read.
    Notified,
    /// The Engine has not given an address for it.
    NoAddress(JobStatus),
}

/// The reason why a file did not reach the storage, for the job's timeline.
#[derive(Clone, Debug)]
pub struct UploadFailure {
    pub input: String,
    /// The code of a problem.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
    /// The storage's answer, if there was one.
    pub storage: Option<StorageRefusal>,
}

impl UploadFailure {
    /// The event that reports it.
    pub fn event(self, job_id: JobId, at: Timestamp) -> NewEvent {
        let storage = self.storage.as_ref();
        NewEvent::new(job_id, EventType::InputUploadFailed, at).with(json!({
            "input": self.input,
            "code": self.code,
            "detail": self.detail,
            "storageStatus": storage.map(|said| said.status),
            "storageCode": storage.and_then(|said| said.code.as_deref()),
            "storageMessage": storage.and_then(|said| said.message.as_deref()),
        }))
    }
}

/// A notification that is due, and the inputs that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub url: String,
    pub inputs: Vec<String>,
}

/// An input that may be uploaded, and the address for its bytes.
///
/// # Errors
/// [`NoUpload`]: the reason why the input cannot be uploaded.
pub fn target<'a>(job: &'a Job, name: &str) -> Result<(&'a Input, &'a str), NoUpload> {
    let input = job.inputs.iter().find(|input| input.name == name).ok_or(NoUpload::Unknown)?;
    match (input.state, input.upload_url.as_deref()) {
        (InputState::Provided, _) => Err(NoUpload::Provided),
        (InputState::Notified, _) => Err(NoUpload::Notified),
        (_, Some(url)) => Ok((input, url)),
        (_, None) => Err(NoUpload::NoAddress(job.status)),
    }
}

/// The notification that is due once the input `name` is uploaded: none while another input with
/// the same address is missing, if the Engine has been notified of all of them, or if it asked for
/// no notification.
pub fn due_notice(inputs: &[Input], name: &str) -> Option<Notice> {
    let url = inputs.iter().find(|input| input.name == name)?.notify_url.clone()?;
    let covered = || inputs.iter().filter(|input| input.notify_url.as_ref() == Some(&url));
    if covered().any(|input| input.state == InputState::Awaiting) {
        return None;
    }
    let untold = covered().filter(|input| input.state == InputState::Uploaded);
    let inputs: Vec<String> = untold.map(|input| input.name.clone()).collect();
    (!inputs.is_empty()).then_some(Notice { url, inputs })
}

#[cfg(test)]
mod tests {
    use super::{InputState::*, *};

    fn input(name: &str, notify_url: Option<&str>, state: InputState) -> Input {
        Input {
            name: name.into(),
            extension: ".stl".into(),
            upload_url: Some(format!("https://store/{name}")),
            notify_url: notify_url.map(str::to_owned),
            state,
        }
    }

    #[test]
    fn a_shared_address_is_called_when_its_last_input_is_there() {
        let shared = Some("https://engine/notify");
        let job = |upper, lower| {
            [
                input("cbct", None, Provided),
                input("ios_upper", shared, upper),
                input("ios_lower", shared, lower),
            ]
        };
        let told = |names: &[&str]| {
            let inputs = names.iter().map(|name| (*name).to_owned()).collect();
            Some(Notice { url: "https://engine/notify".into(), inputs })
        };
        for (upper, lower, expected) in [
            (Uploaded, Awaiting, None),
            (Uploaded, Uploaded, told(&["ios_upper", "ios_lower"])),
            (Uploaded, Notified, told(&["ios_upper"])),
            (Uploaded, Provided, told(&["ios_upper"])),
            (Notified, Notified, None),
        ] {
            assert_eq!(
                due_notice(&job(upper, lower), "ios_upper"),
                expected,
                "{upper:?} {lower:?}"
            );
        }
    }

    #[test]
    fn each_input_with_an_address_of_its_own_is_told_alone() {
        let inputs = [input("a", Some("https://n/a"), Uploaded), input("b", None, Uploaded)];
        let expected = Notice { url: "https://n/a".into(), inputs: vec!["a".into()] };
        assert_eq!(due_notice(&inputs, "a"), Some(expected));
        assert_eq!(due_notice(&inputs, "b"), None);
        assert_eq!(due_notice(&inputs, "c"), None);
    }
}
