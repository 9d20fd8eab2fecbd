//! The bytes of an output, of any size in constant memory: a head, and a cycle repeated to the end.
//!
//! Made by `mesh`; sent by `download` and `processing`; tests compare what they received with it. A
//! piece is a view of the head or of the cycle; nothing is copied.

use std::ops::Range;

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::hex;

/// Bytes of a cycle: in pieces of this size, the overhead of sending is negligible.
const CYCLE_BYTES: usize = 256 * 1024;

/// The content of an output's file.
#[derive(Clone, Debug)]
pub struct FileContent {
    head: Bytes,
    cycle: Bytes,
    size_bytes: u64,
}

impl FileContent {
    /// A head, then a unit repeated `times` times.
    pub(super) fn repeating(head: impl Into<Bytes>, unit: &[u8], times: u64) -> Self {
        let (head, unit_bytes) = (head.into(), unit.len() as u64);
        let in_cycle = times.min(CYCLE_BYTES as u64 / unit_bytes.max(1) + 1);
        let cycle = unit.repeat(in_cycle as usize).into();
        Self { size_bytes: head.len() as u64 + unit_bytes * times, head, cycle }
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The whole content in memory.
    pub fn bytes(&self) -> Bytes {
        self.pieces(0..self.size_bytes, CYCLE_BYTES).collect::<Vec<_>>().concat().into()
    }

    /// SHA-256 of the content in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&self.digest::<Sha256>())
    }

    pub(super) fn md5(&self) -> Vec<u8> {
        self.digest::<Md5>()
    }

    fn digest<D: Digest>(&self) -> Vec<u8> {
        let mut digest = D::new();
        self.pieces(0..self.size_bytes, CYCLE_BYTES).for_each(|piece| digest.update(piece));
        digest.finalize().to_vec()
    }

    /// Strong ETag, computed from the size, the head and the cycle.
    pub(super) fn etag(&self) -> String {
        let mut digest = Sha256::new_with_prefix(self.size_bytes.to_le_bytes());
        digest.update(&self.head);
        digest.update(&self.cycle);
        format!("\"{}\"", &hex(&digest.finalize())[..32])
    }

    /// A range of the content, in pieces of at most `piece_bytes` bytes.
    pub(super) fn pieces(
        &self,
        range: Range<u64>,
        piece_bytes: usize,
    ) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (content, mut at) = (self.clone(), range.start);
        std::iter::from_fn(move || {
            let left =
                range.end.min(content.size_bytes).checked_sub(at).filter(|left| *left > 0)?;
            let piece = content.piece(at, left.min(piece_bytes as u64) as usize);
            at += piece.len() as u64;
            Some(piece)
        })
    }

    /// The bytes at a position, up to the end of the head or the cycle.
    fn piece(&self, at: u64, max_bytes: usize) -> Bytes {
        let (part, at) = match at.checked_sub(self.head.len() as u64) {
            None => (&self.head, at as usize),
            Some(behind) => (&self.cycle, (behind % self.cycle.len() as u64) as usize),
        };
        part.slice(at..part.len().min(at + max_bytes))
    }
}
