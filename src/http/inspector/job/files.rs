//! What goes into a job and what comes out of it, file by file.
//!
//! The invariant: a link that came from the Engine is followed only if it is http(s), and its query
//! is never printed.

use maud::{Markup, html};

use super::super::parts::{self, Tone};
use crate::domain::job::{InputState, Job, Output};

pub(super) fn inputs(job: &Job) -> Markup {
    html! {
        @if job.inputs.is_empty() { p.muted { "They are not known: the job was not submitted here." } }
        @else {
            table.plain {
                thead { tr { th scope="col" { "Input" } th scope="col" { "Type" } th scope="col" { "State" } } }
                tbody {
                    @for input in &job.inputs {
                        @let (tone, why) = match input.state {
                            InputState::Awaiting => (Tone::Warning, "The Engine waits for its upload"),
                            InputState::Uploaded => (Tone::Quiet, "It is uploaded"),
                            InputState::Notified => (Tone::Good, "It is uploaded, and the Engine was told"),
                            InputState::Provided => (Tone::Good, "The Engine fetches it from the address it was given"),
                        };
                        tr {
                            td { (input.name) }
                            td { code { (input.extension) } }
                            td { (parts::tag(tone, input.state.as_str(), why)) }
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
            table.plain {
                thead { tr { th scope="col" { "Output" } th scope="col" { "Structures" } th scope="col" { "Status" } th scope="col" { "File" } } }
                tbody {
                    @for output in &job.outputs {
                        tr {
                            td { (output.name) " " code { (output.extension.as_deref().unwrap_or_default()) } }
                            td { (output.structures.join(", ")) }
                            td { (status(output)) }
                            td { (download(output)) }
                        }
                    }
                }
            }
        }
    }
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

fn download(output: &Output) -> Markup {
    let is_web = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
    match output.url.as_deref().filter(is_web) {
        Some(url) => html! {
            a href=(url) rel="noreferrer" title="At the Engine; its link expires" { "Download" }
        },
        None => html! { span.muted { "–" } },
    }
}
