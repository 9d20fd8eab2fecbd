//! What the list says when it is empty: what to do next.
//!
//! The invariant: every command shown runs as it stands, against the address the reader came by.

use axum::http::{HeaderMap, header::HOST};
use maud::{Markup, html};

/// Nothing was ever submitted.
pub(super) fn no_jobs_yet(headers: &HeaderMap) -> Markup {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost:8086");
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let origin = format!("{}://{host}", if is_https { "https" } else { "http" });
    let submit = format!(
        "curl {origin}/v1/jobs -H 'Content-Type: application/json' \\\n  \
         -d '{{\"inputFiles\": {{\"cbct\": {{\"extension\": \".dcm\"}}}},\n       \
         \"outputFiles\": {{\"meshes\": [{{\"extension\": \".stl\", \"structures\": [\"mandible\"]}}]}}}}'"
    );
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
                    (command("ngrok http 8085"))
                }
                li {
                    h3 { "Submit the first job" }
                    p { "With a key, add " code { "-H 'Authorization: Bearer KEY'" } "." }
                    (command(&submit))
                }
            }
        }
    }
}

/// There are jobs, but none that fits the filters.
pub(super) fn nothing_fits() -> Markup {
    html! {
        section.empty {
            h2 { "No job fits" }
            p { "None has all of these properties. A job that comes to have them appears here by itself." }
            p { a.button href="/jobs" { "Show all jobs" } }
        }
    }
}

fn command(text: &str) -> Markup {
    html! {
        div.command { pre { code { (text) } } button.copy type="button" data-copy=(text) hidden { "Copy" } }
    }
}
