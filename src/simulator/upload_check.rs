//! Checks whether bytes match their announced extension.
//!
//! Called for uploads and fetched inputs under `check_uploads`. It refuses only what is certainly
//! wrong; unknown extensions pass.

use super::Upload;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// A DICOM file begins with a preamble of 128 bytes.
const DICOM_MAGIC_AT: usize = 128;
/// Every NIfTI-1 file begins with the size of its header.
const NIFTI_HEADER_BYTES: u32 = 348;

/// Checks the beginning and the length of a file; the error is a sentence.
pub(super) fn check(extension: &str, upload: &Upload) -> Result<(), String> {
    let content = upload.content.as_ref();
    let extension = extension.to_ascii_lowercase();
    let plausible = match extension.as_str() {
        _ if content.is_empty() => false,
        compressed if compressed.ends_with(".gz") => content.starts_with(GZIP_MAGIC),
        ".dcm" => content.get(DICOM_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"DICM")),
        ".zip" => content.starts_with(b"PK"),
        ".nrrd" => content.starts_with(b"NRRD"),
        ".nii" => is_nifti(content),
        ".vti" => content.trim_ascii_start().starts_with(b"<"),
        ".stl" => content.starts_with(b"solid") || is_binary_stl(content, upload.size_bytes),
        ".ply" => content.starts_with(b"ply"),
        ".obj" => !content.contains(&0),
        _ => true,
    };
    match plausible {
        true => Ok(()),
        false => Err(format!("the file is not a {extension} file")),
    }
}

fn is_nifti(content: &[u8]) -> bool {
    let header = content.first_chunk().copied();
    header.is_some_and(|size| {
        u32::from_le_bytes(size) == NIFTI_HEADER_BYTES
            || u32::from_be_bytes(size) == NIFTI_HEADER_BYTES
    })
}

/// Binary STL: a header of 80 bytes, the number of triangles, 50 bytes per triangle.
fn is_binary_stl(content: &[u8], size_bytes: u64) -> bool {
    let count = content.get(80..).and_then(|rest| rest.first_chunk().copied());
    count.is_some_and(|count| 84 + 50 * u64::from(u32::from_le_bytes(count)) == size_bytes)
}
