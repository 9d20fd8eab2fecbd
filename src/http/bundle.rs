//! All files of a job as one zip, built while it is read.
//!
//! Called by `outputs`. Invariants: memory use is a few pieces, regardless of the files' sizes; if
//! a file cannot be read to its end, the connection is cut, so that an incomplete bundle never
//! looks complete.

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::Crc;
use futures_util::{
    TryStreamExt,
    stream::{self, BoxStream},
};

use super::{Context, download, error::Problem, zip::Archive};
use crate::{
    blobs::{BlobError, Blobs, FileKey},
    domain::{file_name, job::Job, mirror::StoredCopy, names::Names},
};

/// A bundle being sent.
struct Packing {
    context: Context,
    blobs: Blobs,
    archive: Archive,
    copies: Vec<StoredCopy>,
    /// Checksums of the files whose headers have been sent.
    crcs: Vec<u32>,
    /// The unread rest of the file being sent.
    content: Option<(BoxStream<'static, Result<Bytes, BlobError>>, Crc)>,
    has_directory: bool,
}

/// Sends every copy that the job has, under distinct names.
pub(super) async fn zip(context: Context, job: Job) -> Result<Response, Problem> {
    let mut copies = download::copies(&job);
    let (Some(blobs), false) = (context.blobs.clone(), copies.is_empty()) else {
        return Err(Problem::NoFile("the job has no mirrored files".into()));
    };
    let names = copies.iter().map(|copy| file_name::of_output(&job, &copy.output)).collect();
    let sizes = copies.iter().map(|copy| copy.output.file.as_ref().map_or(0, |file| file.bytes));
    let files = file_name::distinct(names).into_iter().zip(sizes).collect();
    let archive = Archive::new(files, job.finished_at.unwrap_or(job.created_at));
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        download::length(archive.length()),
        download::attachment(&file_name::of_bundle(&job)),
    ];
    let job_id = job.id;
    drop(job);
    for copy in &mut copies {
        // A bundle may take hours to send, and needs only the files.
        copy.output.structures = Names::default();
        copy.output.url = None;
    }
    let packing = Packing {
        context,
        blobs,
        archive,
        copies,
        crcs: Vec::new(),
        content: None,
        has_directory: false,
    };
    let pieces = stream::try_unfold(packing, Packing::next).inspect_err(move |error| {
        tracing::warn!(job.id = %job_id, %error, "a bundle broke off");
    });
    Ok((head, Body::from_stream(pieces)).into_response())
}

impl Packing {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BlobError> {
        let position = self.crcs.len();
        if let Some((content, crc)) = &mut self.content {
            if let Some(piece) = content.try_next().await? {
                crc.update(&piece);
                return Ok(Some((piece, self)));
            }
            // The file's header has already announced this checksum.
            if self.crcs.last() != Some(&crc.sum()) {
                return Err(BlobError::Short);
            }
            self.content = None;
        }
        if let Some(copy) = self.copies.get(position) {
            let file = copy.output.file.as_ref().ok_or(BlobError::Missing)?;
            let sound = download::sound(&self.context, &self.blobs, copy).await?;
            let crc = sound.ok_or(BlobError::Short)?.crc32;
            let content = self.blobs.read(&FileKey::of(copy), 0..file.bytes).await?;
            self.content = Some((content, Crc::new()));
            self.crcs.push(crc);
            return Ok(Some((self.archive.header(position, crc).into(), self)));
        }
        if self.has_directory {
            return Ok(None);
        }
        self.has_directory = true;
        Ok(Some((self.archive.directory(&self.crcs).into(), self)))
    }
}
