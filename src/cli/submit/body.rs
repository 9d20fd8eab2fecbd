//! The body of a job: from a file, from standard input, or built from flags.
//!
//! A body from a file or from standard input is passed on byte for byte.

use std::{
    io::{self, Read as _},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::cli::inputs::NamedFile;

/// Default extension of a mesh: every program reads it.
const MESH_EXTENSION: &str = ".stl";

/// A body without a file.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Instead of a body: a mesh of these structures, such as mandible,skull:.stl; repeatable
    #[arg(
        id = "meshes", long = "mesh", value_name = "STRUCTURES[:EXTENSION]", value_parser = mesh,
        requires = "inputs",
    )]
    pub(super) meshes: Vec<Mesh>,
    /// With --mesh: a label of your own
    #[arg(long, requires = "meshes")]
    reference: Option<String>,
    /// With --mesh: the end user the job is for
    #[arg(long, value_name = "END_USER_ID", requires = "meshes")]
    end_user: Option<String>,
    /// With --mesh: the licence that pays
    #[arg(long, requires = "meshes")]
    cloud_package: Option<String>,
}

/// One `--mesh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mesh {
    structures: Vec<String>,
    extension: String,
}

fn mesh(text: &str) -> Result<Mesh, &'static str> {
    let (structures, extension) = text.split_once(':').unwrap_or((text, MESH_EXTENSION));
    let structures: Vec<String> = structures.split(',').map(|one| one.trim().to_owned()).collect();
    let is_extension = extension.len() > 1 && extension.starts_with('.');
    if !is_extension || structures.iter().any(String::is_empty) {
        return Err("expected structures and an extension, such as mandible,skull:.stl");
    }
    Ok(Mesh { structures, extension: extension.to_owned() })
}

impl Flags {
    /// The body that the flags and the files' names describe.
    pub(super) fn body(&self, files: &[NamedFile]) -> anyhow::Result<Vec<u8>> {
        let mut inputs = Map::new();
        for file in files {
            let extension = file.extension().with_context(|| {
                format!("--input {}: the file's name has no extension that says what it is; rename it, or write a JOB.json", file.name)
            })?;
            inputs.insert(file.name.clone(), json!({ "extension": extension }));
        }
        let meshes = self
            .meshes
            .iter()
            .map(|mesh| json!({ "extension": mesh.extension, "structures": mesh.structures }));
        let meshes: Vec<Value> = meshes.collect();
        let mut body = json!({ "inputFiles": inputs, "outputFiles": { "meshes": meshes } });
        if let Some(reference) = &self.reference {
            body["finishline"] = json!({ "reference": reference });
        }
        for (name, text) in [("endUserId", &self.end_user), ("cloudPackage", &self.cloud_package)] {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        Ok(body.to_string().into_bytes())
    }
}

/// Reads a body; `-` is standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut body = Vec::new();
        io::stdin().lock().read_to_end(&mut body).context("standard input")?;
        return Ok(body);
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_is_read_as_it_is_typed() {
        let read = |text| mesh(text).map(|mesh| (mesh.structures.join("+"), mesh.extension));
        let found = |structures: &str, extension: &str| Ok((structures.into(), extension.into()));
        assert_eq!(read("mandible,skull:.ply"), found("mandible+skull", ".ply"));
        assert_eq!(read("tooth11"), found("tooth11", ".stl"));
        for wrong in ["", ":.stl", "mandible:", "mandible:stl", "mandible:.", "mandible,,skull"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
