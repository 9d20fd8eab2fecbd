//! The form's fields, and the job body made of them.
//!
//! The body contains what was filled in and nothing else; it is validated like every submission.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::form::Form;

/// A kind of scan: its name in a body, its title, and the extensions that its file may have.
pub(super) struct Modality {
    pub name: &'static str,
    pub title: &'static str,
    pub extensions: &'static [&'static str],
}

const MESHES: &[&str] = &[".stl", ".ply", ".obj", ".zip"];

/// The kinds of scans in the Engine's documentation. Others can be added in the JSON.
#[rustfmt::skip]
pub(super) const MODALITIES: [Modality; 4] = [
    Modality { name: "cbct", title: "CBCT", extensions: &[
        ".dcm", ".zip", ".nii", ".nrrd", ".vti", ".dcm.gz", ".nii.gz", ".nrrd.gz", ".vti.gz",
    ] },
    Modality { name: "ios_upper", title: "Intra-oral, upper", extensions: MESHES },
    Modality { name: "ios_lower", title: "Intra-oral, lower", extensions: MESHES },
    Modality { name: "facial", title: "Face", extensions: MESHES },
];

/// The most requested structures; others are typed in.
pub(super) const STRUCTURES: [&str; 7] = [
    "mandible",
    "skull",
    "left_nerve",
    "right_nerve",
    "all_teeth",
    "all_permanent_teeth",
    "all_nerves",
];

/// The formats of a mesh.
pub(super) const OUTPUT_EXTENSIONS: [&str; 4] = [".stl", ".ply", ".obj", ".drc"];

/// How structures are distributed over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileLayout {
    FileForEach,
    AllInOne,
}

impl FileLayout {
    pub(super) const ALL: [(Self, &'static str); 2] =
        [(Self::FileForEach, "A file for each"), (Self::AllInOne, "All merged into one")];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::FileForEach => "each",
            Self::AllInOne => "one",
        }
    }
}

/// A scan's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    pub is_given: bool,
    pub extension: String,
    /// The address from which the Engine fetches it; empty if it is uploaded.
    pub download_url: String,
}

/// The form's fields.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// In the order of [`MODALITIES`].
    pub scans: [Scan; MODALITIES.len()],
    /// The selected ones of [`STRUCTURES`].
    pub structures: Vec<String>,
    /// Others, separated by commas or spaces.
    pub further_structures: String,
    pub layout: FileLayout,
    pub output_extension: String,
    pub reference: String,
    pub end_user_id: String,
    pub cloud_package: String,
    pub finish_webhook: String,
}

impl Default for Draft {
    /// The smallest job that makes sense.
    fn default() -> Self {
        let mut scans = [const {
            Scan { is_given: false, extension: String::new(), download_url: String::new() }
        }; MODALITIES.len()];
        scans[0].is_given = true;
        Self {
            scans,
            structures: vec![STRUCTURES[0].to_owned()],
            further_structures: String::new(),
            layout: FileLayout::FileForEach,
            output_extension: OUTPUT_EXTENSIONS[0].to_owned(),
            reference: String::new(),
            end_user_id: String::new(),
            cloud_package: String::new(),
            finish_webhook: String::new(),
        }
    }
}

impl Draft {
    pub(super) fn of(form: &Form) -> Self {
        let text = |name: &str| form.get(name).unwrap_or_default().trim().to_owned();
        let scan = |modality: Modality| Scan {
            is_given: form.get(&format!("input.{}", modality.name)).is_some(),
            extension: text(&format!("extension.{}", modality.name)),
            download_url: text(&format!("url.{}", modality.name)),
        };
        let is_merged = form.get("spread") == Some(FileLayout::AllInOne.as_str());
        Self {
            scans: MODALITIES.map(scan),
            structures: form.all("structure").map(str::to_owned).collect(),
            further_structures: text("structures"),
            layout: if is_merged { FileLayout::AllInOne } else { FileLayout::FileForEach },
            output_extension: text("outputExtension"),
            reference: text("reference"),
            end_user_id: text("endUserId"),
            cloud_package: text("cloudPackage"),
            finish_webhook: text("finishWebhook"),
        }
    }

    /// The job body, formatted for readers.
    pub(super) fn body(&self) -> String {
        let given = MODALITIES.iter().zip(&self.scans).filter(|(_, scan)| scan.is_given);
        let inputs = given.map(|(modality, scan)| {
            let extension = match scan.extension.as_str() {
                "" => modality.extensions[0],
                extension => extension,
            };
            (modality.name, Input { extension, download_url: filled(&scan.download_url) })
        });
        let body = Body {
            input_files: inputs.collect(),
            output_files: Outputs { meshes: self.meshes() },
            finishline: filled(&self.reference).map(|reference| Label { reference }),
            end_user_id: filled(&self.end_user_id),
            cloud_package: filled(&self.cloud_package),
            finish_webhook: filled(&self.finish_webhook),
        };
        serde_json::to_string_pretty(&body).expect("texts in objects are JSON")
    }

    fn meshes(&self) -> Vec<Mesh<'_>> {
        let further = self.further_structures.split([',', ' ', '\n', ';']);
        let further = further.map(str::trim).filter(|name| !name.is_empty());
        let structures: Vec<&str> =
            self.structures.iter().map(String::as_str).chain(further).collect();
        let mesh = |structures| Mesh { extension: &self.output_extension, structures };
        match self.layout {
            _ if structures.is_empty() => Vec::new(),
            FileLayout::AllInOne => vec![mesh(structures)],
            FileLayout::FileForEach => structures.into_iter().map(|one| mesh(vec![one])).collect(),
        }
    }
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    input_files: BTreeMap<&'a str, Input<'a>>,
    output_files: Outputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finishline: Option<Label<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_package: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_webhook: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Input<'a> {
    extension: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_url: Option<&'a str>,
}

#[derive(Serialize)]
struct Outputs<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    meshes: Vec<Mesh<'a>>,
}

#[derive(Serialize)]
struct Mesh<'a> {
    extension: &'a str,
    structures: Vec<&'a str>,
}

#[derive(Serialize)]
struct Label<'a> {
    reference: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(draft: &Draft) -> Value {
        serde_json::from_str(&draft.body()).expect("JSON")
    }

    #[test]
    fn an_untouched_form_stands_for_the_smallest_job() {
        let expected = json!({
            "inputFiles": {"cbct": {"extension": ".dcm"}},
            "outputFiles": {"meshes": [{"extension": ".stl", "structures": ["mandible"]}]},
        });
        assert_eq!(body(&Draft::default()), expected);
    }

    #[test]
    fn structures_get_a_file_each_or_share_one() {
        let mut draft = Draft { further_structures: "tooth11, tooth12".into(), ..Draft::default() };
        assert_eq!(body(&draft)["outputFiles"]["meshes"].as_array().map(Vec::len), Some(3));
        draft.layout = FileLayout::AllInOne;
        let merged =
            json!([{"extension": ".stl", "structures": ["mandible", "tooth11", "tooth12"]}]);
        assert_eq!(body(&draft)["outputFiles"]["meshes"], merged);
        let empty = Draft { structures: Vec::new(), further_structures: String::new(), ..draft };
        assert_eq!(body(&empty)["outputFiles"], json!({}));
    }
}
