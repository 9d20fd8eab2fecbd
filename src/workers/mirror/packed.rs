//! Checks the packed bytes of an answer against its head while they are unpacked.
//!
//! Used by `fetch`. Lengths and digests in a head are those of the packed bytes, so they say
//! nothing about the unpacked file.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{answer::Head, fetch::Fault};
use crate::domain::content_coding::ContentCoding;

/// See the module.
pub(super) struct PackedBytes {
    length: Option<u64>,
    told_sha256: Option<[u8; 32]>,
    told_md5: Option<[u8; 16]>,
    received: u64,
    sha256: Sha256,
    md5: Md5,
}

impl PackedBytes {
    pub fn new(head: &Head) -> Self {
        Self {
            length: head.length,
            told_sha256: head.sha256,
            told_md5: head.md5,
            received: 0,
            sha256: Sha256::new(),
            md5: Md5::new(),
        }
    }

    /// What the head says about the unpacked file: only its type.
    pub fn expected_file(&self, head: Head) -> Head {
        let Head { content_type, .. } = head;
        Head {
            start: 0,
            length: None,
            total: None,
            etag: None,
            content_type,
            coding: ContentCoding::Plain,
            sha256: None,
            md5: None,
        }
    }

    pub fn update(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.received += piece.len() as u64;
        if self.length.is_some_and(|length| self.received > length) {
            return Err(Fault::other("it is longer than the server told"));
        }
        if self.told_sha256.is_some() {
            self.sha256.update(piece);
        }
        if self.told_md5.is_some() {
            self.md5.update(piece);
        }
        Ok(())
    }

    /// Checks length and digests after the last piece.
    pub fn finish(self) -> Result<(), Fault> {
        if self.length.is_some_and(|length| self.received != length) {
            return Err(Fault::other("the answer ended before the file did"));
        }
        let (sha256, md5) = (self.sha256.finalize(), self.md5.finalize());
        let is_sha256 = self.told_sha256.is_none_or(|told| told == <[u8; 32]>::from(sha256));
        let is_md5 = self.told_md5.is_none_or(|told| told == <[u8; 16]>::from(md5));
        if is_sha256 && is_md5 {
            return Ok(());
        }
        Err(Fault::other("its bytes are not those of the digest that came with them"))
    }
}
