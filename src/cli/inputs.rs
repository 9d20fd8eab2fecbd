//! Files for a job's inputs: `--input cbct=scan.dcm`.
//!
//! Used by `submit` and `jobs upload`. Every mistake that can be found locally is reported before
//! anything is submitted.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::progress::{shell_os_word, shell_word};
use crate::{client::Source, domain::link};

/// Longest extension, without its dot; a longer one is part of the name.
const LONGEST_EXTENSION: usize = 5;

/// The extension that may follow another one.
const COMPRESSED: &str = "gz";

/// One `NAME=FILE`.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    pub(super) name: String,
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// Upload this file as that input, such as cbct=scan.dcm; repeatable
    #[arg(id = "inputs", long = "input", value_name = "NAME=FILE", value_parser = OsStringValueParser::new().try_map(|text| named_file(&text)))]
    pub(super) files: Vec<NamedFile>,
    /// Content type that the links for the uploads were signed for; unless given, none is sent
    #[arg(long, value_name = "TYPE", value_parser = header_value, requires = "inputs")]
    content_type: Option<HeaderValue>,
    /// Another header that the links sign, such as x-amz-acl:private; repeatable
    #[arg(long = "upload-header", value_name = "NAME:VALUE", value_parser = named_header, requires = "inputs")]
    headers: Vec<NamedHeader>,
}

/// One `NAME:VALUE`.
#[derive(Clone, Debug)]
pub(super) struct NamedHeader {
    name: HeaderName,
    value: HeaderValue,
}

fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    let value = HeaderValue::from_str(text.trim()).ok().filter(|value| !value.is_empty());
    value.ok_or("expected the value of a header, such as application/dicom")
}

fn named_header(text: &str) -> Result<NamedHeader, &'static str> {
    let wrong = "expected NAME:VALUE, such as x-amz-acl:private";
    let (name, value) = text.split_once(':').ok_or(wrong)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| wrong)?;
    if !link::can_be_passed_on(name.as_str()) {
        return Err("this header is not passed on to a storage");
    }
    Ok(NamedHeader { name, value: header_value(value).map_err(|_| wrong)? })
}

/// A file that exists and can be read.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Headers for the storage.
    headers: HeaderMap,
}

/// Parses `NAME=FILE`: a file name may be any bytes, an input's name is text.
fn named_file(text: &OsStr) -> Result<NamedFile, &'static str> {
    let wrong = "expected NAME=FILE, such as cbct=scan.dcm";
    let bytes = text.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').ok_or(wrong)?;
    let (name, path) = (&bytes[..equals], &bytes[equals + 1..]);
    if name.is_empty() || path.is_empty() {
        return Err(wrong);
    }
    let name = str::from_utf8(name).map_err(|_| "the input's name is not UTF-8")?;
    Ok(NamedFile { name: name.to_owned(), path: OsStr::from_bytes(path).into() })
}

impl Arguments {
    /// Checks all the files.
    pub(super) fn readable(&self) -> anyhow::Result<Vec<InputFile>> {
        let mut names = BTreeSet::new();
        let headers = self.headers();
        let looked_at = self.files.iter().map(|file| {
            if !names.insert(&file.name) {
                bail!("--input {}: named twice", file.name);
            }
            let found = file.look(&headers);
            found.with_context(|| format!("--input {}={}", file.name, file.path.display()))
        });
        looked_at.collect()
    }

    fn headers(&self) -> HeaderMap {
        let given = self.headers.iter().map(|one| (one.name.clone(), one.value.clone()));
        let mut headers: HeaderMap = given.collect();
        headers.extend(self.content_type.clone().map(|kind| (CONTENT_TYPE, kind)));
        headers
    }
}

/// Compares the files with the inputs of a job, by name and extension; returns warnings.
pub(super) fn compare(
    files: &[NamedFile],
    announced: &[(&str, &str)],
) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    for file in files {
        let input = announced.iter().find(|(name, _)| *name == file.name);
        let Some((_, extension)) = input else {
            let names: Vec<&str> = announced.iter().map(|(name, _)| *name).collect();
            bail!("--input {}: the job has no such input, only {}", file.name, names.join(", "));
        };
        warnings.extend(file.mismatch(extension));
    }
    Ok(warnings)
}

impl NamedFile {
    fn look(&self, headers: &HeaderMap) -> anyhow::Result<InputFile> {
        let found = fs::metadata(&self.path)?;
        if found.is_dir() {
            bail!("a folder; an input is one file: put the slices into one .zip");
        }
        if !found.is_file() {
            bail!("not a file, so its length is not known");
        }
        if found.len() == 0 {
            bail!("the file is empty");
        }
        fs::File::open(&self.path)?;
        let (name, path) = (self.name.clone(), self.path.clone());
        Ok(InputFile { name, path, bytes: found.len(), headers: headers.clone() })
    }

    /// The extension in the Engine's sense, in lower case: `.dcm`, `.nii.gz`.
    pub(super) fn extension(&self) -> Option<String> {
        let name = self.path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (stem, last) = split_extension(&name)?;
        match split_extension(stem) {
            Some((_, before)) if last == COMPRESSED => Some(format!(".{before}.{last}")),
            _ => Some(format!(".{last}")),
        }
    }

    /// A warning, if the file's extension differs from the announced one.
    fn mismatch(&self, announced: &str) -> Option<String> {
        let extension = self.extension()?;
        (!extension.eq_ignore_ascii_case(announced)).then(|| {
            let (name, path) = (&self.name, self.path.display());
            format!("warning: {name} is announced as {announced}, but the file is {path}")
        })
    }
}

impl InputFile {
    /// Opens the file for an upload; fails if its length has changed.
    pub(super) async fn open(&self) -> anyhow::Result<Source> {
        let open = async {
            let file = tokio::fs::File::open(&self.path).await?;
            let length = file.metadata().await?.len();
            if length != self.bytes {
                bail!("the file has changed meanwhile");
            }
            Ok(Source { file, length, headers: self.headers.clone() })
        };
        open.await.with_context(|| self.path.display().to_string())
    }

    /// The flag that names this file again.
    pub(super) fn flag(&self) -> String {
        let mut word = OsString::from(format!("{}=", self.name));
        word.push(&self.path);
        format!("--input {}", shell_os_word(&word))
    }

    /// The flags of its headers, each with a space before it.
    pub(super) fn header_flags(&self) -> String {
        let flag = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = value.to_str().unwrap_or_default();
            match *name == CONTENT_TYPE {
                true => format!(" --content-type {}", shell_word(value)),
                false => format!(" --upload-header {}", shell_word(&format!("{name}:{value}"))),
            }
        };
        self.headers.iter().map(flag).collect()
    }
}

/// `None` if the text after the last dot is no extension.
fn split_extension(name: &str) -> Option<(&str, &str)> {
    let (stem, last) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
    let is_extension = (1..=LONGEST_EXTENSION).contains(&last.len())
        && last.starts_with(|first: char| first.is_ascii_alphabetic())
        && last.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_extension.then_some((stem, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_file_has_both_extensions() {
        for (file, extension) in [
            ("scan.dcm", Some(".dcm")),
            ("SCAN.DCM", Some(".dcm")),
            ("folder.old/scan.nii.gz", Some(".nii.gz")),
            ("patient.7.stl", Some(".stl")),
            ("2026.11.24.gz", Some(".gz")),
            ("dr.hofmeister.gz", Some(".gz")),
            ("folder.dcm/IM0001", None),
            (".dcm", None),
            ("1.2.840.10008", None),
        ] {
            let named = named_file(format!("cbct={file}").as_ref()).expect("a name and a file");
            assert_eq!(named.extension().as_deref(), extension, "{file}");
        }
    }
}
