//! The download of one output: open, resume, verify, move into place.
//!
//! Invariant: a file in its final place has the length and the digest that were announced.

use std::{io, path::PathBuf};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::OnceCell;

use super::{
    Existing, Folder, Outcome,
    part::{Part, Placed, digest_of},
};
use crate::{
    api,
    cli::{
        connection::{Backoff, line_of},
        progress::Progress,
    },
    client::{Client, DownloadError, Wanted},
    domain::ids::JobId,
};

/// Give up after this many tries in a row without progress.
const TRIES: u32 = 5;

/// The download of one output.
pub(super) struct Fetch<'a> {
    pub(super) client: &'a Client,
    pub(super) id: JobId,
    pub(super) output: &'a api::Output,
    pub(super) folder: &'a Folder,
    pub(super) progress: &'a Progress,
    pub(super) bar: &'a ProgressBar,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", match .0 {
        DownloadError::Service(error) => line_of(error),
        other => other.to_string(),
    })]
    Download(#[from] DownloadError),
    #[error("what came is not what the service has on record")]
    OtherBytes,
    #[error("{} is there and differs, so it is kept; --force replaces it", .0.display())]
    Differs(PathBuf),
    #[error("{0}")]
    Folder(#[from] io::Error),
}

impl Trouble {
    fn is_passing(&self) -> bool {
        match self {
            Self::Download(error) => error.is_passing(),
            Self::OtherBytes => true,
            Self::Differs(_) | Self::Folder(_) => false,
        }
    }

    fn is_dead_link(&self) -> bool {
        matches!(self, Self::Download(error) if error.is_dead_link())
    }
}

impl Fetch<'_> {
    /// Downloads the output to `place`; `refreshed` is shared, so that the Engine is asked for
    /// fresh links only once for all outputs.
    pub(super) async fn run(&self, place: PathBuf, refreshed: &OnceCell<bool>) -> Outcome {
        match self.fetch(&place, refreshed).await {
            Ok(Placed::Written(copy)) => Outcome::Written(copy),
            Ok(Placed::Unchanged(copy)) => Outcome::Unchanged(copy),
            Err(trouble) => {
                let line = trouble.to_string();
                self.progress.alarm(&format!("{}: {line}", self.output.name));
                match trouble {
                    Trouble::Differs(_) => Outcome::Kept(line),
                    _ => Outcome::Failed(line),
                }
            }
        }
    }

    async fn fetch(&self, place: &PathBuf, refreshed: &OnceCell<bool>) -> Result<Placed, Trouble> {
        if let Some(file) = &self.output.file
            && let Some(found) = digest_of(place).await?
        {
            // The copy's digest is known: no download is needed to see that the file is here.
            match (found.sha256 == file.sha256, self.folder.existing) {
                (true, _) => return Ok(Placed::Unchanged(found)),
                (false, Existing::Keep) => return Err(Trouble::Differs(place.clone())),
                (false, Existing::Replace) => {}
            }
        }
        let mut part = Part::new(&self.folder.path)?;
        let (mut tries, mut backoff) = (0, Backoff::default());
        let (mut furthest, mut has_asked) = (0, false);
        loop {
            let Err(trouble) = self.attempt(place, &mut part).await else { break };
            let is_to_ask = trouble.is_dead_link() && !std::mem::replace(&mut has_asked, true);
            if is_to_ask && *refreshed.get_or_init(|| self.refresh()).await {
                continue;
            }
            if !trouble.is_passing() {
                return Err(trouble);
            }
            match part.length() > furthest {
                true => (furthest, tries, backoff) = (part.length(), 0, Backoff::default()),
                false => {
                    tries += 1;
                    self.restart(&mut part).await?;
                }
            }
            if tries == TRIES {
                return Err(trouble);
            }
            let trouble = format!("{}: {trouble}", self.output.name);
            self.progress.pause(&mut backoff, &trouble).await;
        }
        let placed = part.put(place, self.folder.existing).await?;
        placed.ok_or_else(|| Trouble::Differs(place.clone()))
    }

    /// Continues at the end of the part; bytes that arrive before an error stay in the part.
    async fn attempt(&self, place: &PathBuf, part: &mut Part) -> Result<(), Trouble> {
        let partial = part.partial();
        let wanted = Wanted {
            output: &self.output.name,
            file_name: self.output.extension.as_deref().unwrap_or_default(),
            partial: partial.as_ref(),
        };
        let mut download = self.client.download(self.id, wanted).await?;
        if download.offset == 0 {
            self.restart(part).await?;
            if let Some(total) = download.total {
                self.refuse_early(place, total)?;
                part.expect(total, self.bar);
            }
        }
        part.etag = download.etag.take();
        while let Some(piece) = download.piece().await? {
            part.write(&piece).await?;
            self.bar.inc(piece.len() as u64);
        }
        if download.total.is_some_and(|total| total != part.length()) {
            return Err(download.broken().into());
        }
        if download.sha256.is_some_and(|expected| expected != part.sha256()) {
            self.restart(part).await?;
            return Err(Trouble::OtherBytes);
        }
        Ok(())
    }

    /// Refuses before the download if the existing file has another length and is to be kept.
    fn refuse_early(&self, place: &PathBuf, total: u64) -> Result<(), Trouble> {
        let found = std::fs::metadata(place).ok();
        match found {
            Some(found) if found.len() != total && self.folder.existing == Existing::Keep => {
                Err(Trouble::Differs(place.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn restart(&self, part: &mut Part) -> io::Result<()> {
        self.bar.dec(part.length());
        part.restart().await
    }

    /// Has the service ask the Engine for fresh links; returns whether that worked.
    async fn refresh(&self) -> bool {
        self.progress.note("a link has expired, asking the Engine for fresh ones");
        let path = format!("/v1/jobs/{}/refresh", self.id);
        self.client.post::<api::JobView>(&path, &json!({})).await.is_ok()
    }
}
