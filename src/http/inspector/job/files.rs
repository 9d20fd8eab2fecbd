//! A job's inputs and outputs, file by file.
//!
//! Invariant: no page contains a link of the Engine, since its query is a credential; the API
//! redirects to it, or serves the copy.

use maud::{Markup, html};

use super::super::parts::{self, Tone};
use crate::domain::{
    bounds::{MAX_CELL_CHARS, MAX_SHOWN_FILES},
    job::{InputState, Job, Output},
};

pub(super) fn inputs(job: &Job) -> Markup {
    html! {
        @if job.inputs.is_empty() { p.muted { "They are not known: the job was not submitted here." } }
        @else {
            table.plain.cards {
                thead { tr { th scope="col" { "Input" } th scope="col" { "Type" } th scope="col" { "State" } } }
                tbody {
                    @for input in &job.inputs {
                        @let (tone, why) = match input.state {
                            InputState::Awaiting if job.status.is_in_flight() => (Tone::Warning, "The Engine waits for its upload"),
                            InputState::Awaiting => (Tone::Quiet, "It was not uploaded through Finishline"),
                            InputState::Uploaded => (Tone::Quiet, "It is uploaded"),
                            InputState::Notified => (Tone::Good, "It is uploaded, and the Engine was told"),
                            InputState::Provided => (Tone::Good, "The Engine fetches it from the address it was given"),
                        };
                        tr {
                            td.name { (input.name) }
                            td data-label="Type" { code { (input.extension) } }
                            td data-label="State" { (parts::tag(tone, input.state.as_str(), why)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn outputs(job: &Job) -> Markup {
    html! {
        @if job.outputs.is_empty() { p.muted { "None is known." } }
        @else {
            table.plain.cards {
                thead { tr { th scope="col" { "Output" } th scope="col" { "Structures" } th scope="col" { "Status" } th scope="col" { "File" } } }
                tbody {
                    @for output in job.outputs.iter().take(MAX_SHOWN_FILES) {
                        tr {
                            td.name { (output.name) " " code { (output.extension.as_deref().unwrap_or_default()) } }
                            td data-label="Structures" { (structures(output)) }
                            td data-label="Status" { (status(output)) }
                            td data-label="File" { (link(job, output)) }
                        }
                    }
                }
            }
            @if job.outputs.len() > MAX_SHOWN_FILES {
                p.cut { "The first " (MAX_SHOWN_FILES) " of " (job.outputs.len()) ". "
                    a href={ "/v1/jobs/" (job.id) "/outputs" } { "All of them as JSON" } }
            }
            @match job.secured {
                Some(true) => p.muted {
                    "Every available file is kept here. "
                    @if job.outputs.iter().any(|output| output.file.is_some()) {
                        a href={ "/v1/jobs/" (job.id) "/outputs?bundle=zip" } { "Download all" }
                    }
                },
                Some(false) => p.muted { "Not every available file is kept here yet." },
                None => {},
            }
        }
    }
}

/// The output's structures, cut to the size of a cell.
fn structures(output: &Output) -> String {
    let mut text = String::new();
    for structure in output.structures.iter() {
        if text.len() + structure.len() > MAX_CELL_CHARS && !text.is_empty() {
            text.push_str(", …");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(structure);
    }
    text
}

fn status(output: &Output) -> Markup {
    let Some(status) = &output.status else { return html! { span.muted { "–" } } };
    let tone = match status.as_str() {
        "Available" | "Success" => Tone::Good,
        "Failed" => Tone::Bad,
        "Missing" => Tone::Warning,
        _ => Tone::Quiet,
    };
    parts::tag(tone, status, "As the Engine said")
}

fn link(job: &Job, output: &Output) -> Markup {
    // An output's name comes from the result and may contain any text; in an address it must be one
    // segment.
    let name: String = url::form_urlencoded::byte_serialize(output.name.as_bytes()).collect();
    let address = format!("/v1/jobs/{}/outputs/{}", job.id, name.replace('+', "%20"));
    let (where_it_is, bytes) = match (&output.file, &output.url) {
        (Some(file), _) => ("Kept here, with its SHA-256", Some(file.bytes)),
        (None, Some(_)) => ("At the Engine, whose link expires", None),
        (None, None) => return html! { span.muted { "–" } },
    };
    html! {
        a href=(address) title=(where_it_is) { "Download" }
        @if let Some(bytes) = bytes { " " span.muted { (parts::size(bytes)) } }
        @if let Some(format) = mesh_format(output) {
            " "
            button.copy type="button" data-mesh=(address) data-format=(format)
                data-name=(mesh_name(output)) { "Show" }
        }
    }
}

/// The format for the mesh viewer; `None` if the file is not a mesh it can show.
fn mesh_format(output: &Output) -> Option<&'static str> {
    let extension = output.extension.as_deref()?.to_ascii_lowercase();
    ["stl", "ply", "obj"].into_iter().find(|format| extension.strip_prefix('.') == Some(format))
}

fn mesh_name(output: &Output) -> String {
    match output.structures.is_empty() {
        true => output.name.clone(),
        false => format!("{}: {}", output.name, structures(output)),
    }
}
