//! The form's fields, each with its errors.
//!
//! Invariant: every error of the body is shown, at the field that its pointer leads to, or among
//! those without a field.

use maud::{Markup, html};

use super::{
    super::super::{Context, error::Problem},
    draft::{Draft, FileLayout, MODALITIES, Modality, OUTPUT_EXTENSIONS, STRUCTURES, Scan},
};

/// Pointers of the fields; an error is shown at the longest one that matches.
const POINTERS: [&str; 10] = [
    "/inputFiles",
    "/inputFiles/cbct",
    "/inputFiles/ios_upper",
    "/inputFiles/ios_lower",
    "/inputFiles/facial",
    "/outputFiles",
    "/finishline",
    "/endUserId",
    "/cloudPackage",
    "/finishWebhook",
];

/// The errors of the body, by field.
pub(super) struct FieldErrors {
    /// The field's pointer and the error.
    placed: Vec<(&'static str, String)>,
    elsewhere: Vec<String>,
}

impl FieldErrors {
    pub(super) fn of(problem: Option<&Problem>) -> Self {
        let mut errors = Self { placed: Vec::new(), elsewhere: Vec::new() };
        let Some(Problem::ValidationFailed(violations)) = problem else { return errors };
        for violation in violations {
            let covers = |field: &&&str| {
                let rest = violation.pointer.strip_prefix(**field);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            match POINTERS.iter().filter(covers).max_by_key(|field| field.len()) {
                Some(field) => {
                    let rest = violation.pointer.trim_start_matches(field).trim_start_matches('/');
                    let place = if rest.is_empty() { String::new() } else { format!("{rest}: ") };
                    errors.placed.push((*field, format!("{place}{}", violation.detail)));
                }
                None => {
                    errors.elsewhere.push(format!("{} {}", violation.pointer, violation.detail))
                }
            }
        }
        errors
    }

    pub(super) fn elsewhere(&self) -> &[String] {
        &self.elsewhere
    }

    /// The errors of a field; scripts write here as well.
    fn at(&self, pointer: &str) -> Markup {
        let said: Vec<&str> = self
            .placed
            .iter()
            .filter(|(field, _)| *field == pointer)
            .map(|(_, text)| text.as_str())
            .collect();
        html! { p.wrong data-wrong=(pointer) hidden[said.is_empty()] { (said.join("; ")) } }
    }
}

/// The settings' values for fields that are left empty.
pub(super) struct Placeholders {
    end_user_id: Option<String>,
    cloud_package: Option<String>,
    /// Hosts that a webhook may be on.
    allowed_hosts: Vec<String>,
}

impl Placeholders {
    pub(super) fn of(context: &Context) -> Self {
        let config = &context.config;
        Self {
            end_user_id: config.engine.default_end_user_id.clone(),
            cloud_package: config.engine.default_cloud_package.clone(),
            allowed_hosts: config.relay.allowed_hosts.clone(),
        }
    }
}

pub(super) fn all(draft: &Draft, errors: &FieldErrors, placeholders: &Placeholders) -> Markup {
    html! {
        fieldset.card.part data-part="inputs" {
            legend { "Scans" }
            @for (modality, scan) in MODALITIES.iter().zip(&draft.scans) {
                (scan_fields(modality, scan, errors))
            }
            (errors.at("/inputFiles"))
        }
        fieldset.card.part data-part="outputs" {
            legend { "Meshes" }
            (structures(draft))
            div.fields-row {
                label.field { span { "Format" }
                    select name="outputExtension" {
                        @for extension in OUTPUT_EXTENSIONS {
                            option value=(extension) selected[draft.output_extension == extension] { (extension) }
                        }
                    }
                }
                fieldset.choice {
                    legend { "Files" }
                    @for (layout, title) in FileLayout::ALL {
                        label.chip {
                            input type="radio" name="spread" value=(layout.as_str()) checked[draft.layout == layout];
                            span { (title) }
                        }
                    }
                }
            }
            (errors.at("/outputFiles"))
        }
        fieldset.card.part data-part="labels" {
            legend { "Labels and billing" }
            div.fields-row {
                div {
                    (text_field("reference", "Reference", &draft.reference, "case-42"))
                    (errors.at("/finishline"))
                }
                div {
                    (text_field("endUserId", "End user", &draft.end_user_id, &blank(placeholders.end_user_id.as_deref())))
                    (errors.at("/endUserId"))
                }
                div {
                    (text_field("cloudPackage", "Cloud package", &draft.cloud_package, &blank(placeholders.cloud_package.as_deref())))
                    (errors.at("/cloudPackage"))
                }
                div {
                    (text_field("finishWebhook", "Pass the result on to", &draft.finish_webhook, &webhook_hint(&placeholders.allowed_hosts)))
                    (errors.at("/finishWebhook"))
                }
            }
            div.actions.without-script {
                button.primary name="from" value="fields" { "Submit the form" }
                span.muted { "Scans are uploaded from the command line or by your software." }
            }
        }
    }
}

fn scan_fields(modality: &Modality, scan: &Scan, errors: &FieldErrors) -> Markup {
    let Modality { name, title, extensions } = modality;
    html! {
        div.scan {
            label.given {
                input type="checkbox" name={ "input." (name) } value="yes" checked[scan.is_given] data-scan=(name);
                span { (title) code { (name) } }
            }
            label.field { span.visually-hidden { (title) ": extension" }
                select name={ "extension." (name) } {
                    @for extension in *extensions {
                        option value=(extension) selected[scan.extension == *extension] { (extension) }
                    }
                }
            }
            label.field.with-script { span.visually-hidden { (title) ": file to upload" }
                input type="file" data-file=(name);
            }
            details.link open[!scan.download_url.is_empty()] {
                summary { "or a link it is fetched from" }
                label.field { span.visually-hidden { (title) ": link" }
                    input type="text" inputmode="url" name={ "url." (name) } value=(scan.download_url)
                        placeholder="https://…" autocomplete="off" spellcheck="false";
                }
            }
            (errors.at(&format!("/inputFiles/{name}")))
        }
    }
}

fn structures(draft: &Draft) -> Markup {
    html! {
        fieldset.choice {
            legend { "Structures" }
            @for structure in STRUCTURES {
                label.chip {
                    input type="checkbox" name="structure" value=(structure)
                        checked[draft.structures.iter().any(|one| one == structure)];
                    span { (structure) }
                }
            }
        }
        (text_field("structures", "Further structures", &draft.further_structures, "tooth11, tooth12, …"))
    }
}

fn text_field(name: &str, title: &str, value: &str, placeholder: &str) -> Markup {
    html! {
        label.field { span { (title) }
            input type="text" name=(name) value=(value) placeholder=(placeholder) autocomplete="off" spellcheck="false";
        }
    }
}

fn blank(default: Option<&str>) -> String {
    match default {
        Some(default) => format!("{default} (from the settings)"),
        None => "if agreed with Relu".to_owned(),
    }
}

fn webhook_hint(allowed_hosts: &[String]) -> String {
    match allowed_hosts {
        [] => "relay.allowed_hosts is empty".to_owned(),
        [any] if any == "*" => "https://…".to_owned(),
        [first, ..] => format!("https://{first}/…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::Violation;

    #[test]
    fn a_problem_stands_at_its_field_or_above_all_of_them() {
        let violation = |pointer: &str| Violation { pointer: pointer.into(), detail: "no".into() };
        let problem = Problem::ValidationFailed(vec![
            violation("/inputFiles/cbct/extension"),
            violation("/inputFiles/cbcts"),
            violation("/options/a"),
        ]);
        let errors = FieldErrors::of(Some(&problem));
        let placed = [("/inputFiles/cbct", "extension: no"), ("/inputFiles", "cbcts: no")];
        assert_eq!(errors.placed, placed.map(|(field, text)| (field, text.to_owned())));
        assert_eq!(errors.elsewhere, ["/options/a no"]);
    }
}
