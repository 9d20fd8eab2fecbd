//! What an empty list shows: the next steps.
//!
//! Every command shown runs unchanged.

use maud::{Markup, html};

use super::super::curl::{Api, command};

/// A job that runs once its scan is uploaded.
const FIRST_JOB: &str = r#"{
    "inputFiles": {"cbct": {"extension": ".dcm"}},
    "outputFiles": {"meshes": [{"extension": ".stl", "structures": ["mandible"]}]},
    "finishline": {"reference": "case-42"}
  }"#;

/// No job has been submitted yet.
pub(super) fn no_jobs_yet(api: &Api) -> Markup {
    html! {
        section.empty {
            h2 { "No jobs yet" }
            p { "A job appears here the moment it is submitted, without a reload." }
            ol.steps {
                li {
                    h3 { "Look around without an account" }
                    p { "Service, simulated Engine and a sample job in one process:" }
                    (command("finishline demo"))
                }
                li {
                    h3 { "Let the Engine reach this machine" }
                    p { "A tunnel to the callbacks' door; not one stored result is behind it:" }
                    (command(&format!("ngrok http {}", api.callbacks_port())))
                }
                li {
                    h3 { "Submit the first job" }
                    p { "The answer holds the address that its scan is uploaded to." }
                    (command(&api.submit(FIRST_JOB)))
                }
            }
        }
    }
}

/// There are jobs, but none matches the filters.
pub(super) fn nothing_fits() -> Markup {
    html! {
        section.empty {
            h2 { "No job fits" }
            p { "None has all of these properties. A job that comes to have them appears here by itself." }
            p { a.button href="/jobs" { "Show all jobs" } }
        }
    }
}
