//! `Content-Encoding` of a file that is fetched: gzip is unpacked, any other coding is refused by
//! name.
//!
//! Used wherever outputs are fetched. Invariant: the output is the file's own bytes, or an error if
//! the packed data is incomplete or damaged. It is unpacked piece by piece, so a file of any size
//! needs the memory of a few pieces.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;

/// The first bytes of every gzip file (RFC 1952).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Characters of an unsupported coding's name that are repeated in the error.
const MAX_NAME_CHARS: usize = 40;

/// Names that do not change the bytes: a signed framing of uploads that some servers repeat with
/// the file, and character sets and the like that uploaders mistake for an encoding.
const IS_NO_PACKING: [&str; 10] =
    ["", "identity", "aws-chunked", "none", "binary", "utf-8", "utf8", "us-ascii", "7bit", "8bit"];

/// How the bytes of an answer are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// Unpacked.
    Plain,
    Gzip,
}

impl ContentCoding {
    /// Reads the values of all `Content-Encoding` headers.
    ///
    /// # Errors
    /// The reason why such a file cannot be unpacked.
    pub fn read<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, String> {
        let text: Vec<String> = values
            .into_iter()
            .map(|value| String::from_utf8_lossy(value).to_ascii_lowercase())
            .collect();
        let names = text.iter().flat_map(|list| list.split(',')).map(str::trim);
        let names = names.filter(|name| !IS_NO_PACKING.contains(name));
        let names: Vec<&str> = names.collect();
        match names.as_slice() {
            [] => Ok(Self::Plain),
            ["gzip" | "x-gzip"] => Ok(Self::Gzip),
            [name] => {
                let is_plain = |one: &char| one.is_ascii_alphanumeric() || "-_.".contains(*one);
                let name: String = name.chars().filter(is_plain).take(MAX_NAME_CHARS).collect();
                Err(format!("it comes packed as {name}, which is not unpacked here"))
            }
            _ => Err("it comes packed more than once, which is not unpacked here".into()),
        }
    }
}

/// Whether a file of this name is itself gzip, such as `scan.nii.gz`.
pub fn is_gzip_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".gz") || name.ends_with(".tgz")
}

/// Unpacks a file as it arrives.
///
/// A file whose name says gzip keeps one layer: a storage may declare the file's own gzip as an
/// encoding.
pub struct Unpacker {
    decoder: MultiGzDecoder<Vec<u8>>,
    /// What has arrived, while it is unknown whether it is the file itself.
    held: Option<Vec<u8>>,
    is_file_itself: bool,
}

impl Unpacker {
    /// `name` is the name of the file.
    pub fn new(name: &str) -> Self {
        Self {
            decoder: MultiGzDecoder::new(Vec::new()),
            held: is_gzip_file(name).then(Vec::new),
            is_file_itself: false,
        }
    }

    /// Consumes some bytes of `packed` and returns what they unpack to, which may be nothing yet.
    /// Call it until `packed` is empty.
    ///
    /// # Errors
    /// The data is not gzip or is damaged.
    pub fn step(&mut self, packed: &mut &[u8]) -> io::Result<Vec<u8>> {
        if self.is_file_itself {
            return Ok(std::mem::take(packed).to_vec());
        }
        let before = *packed;
        let taken = self.decoder.write(packed)?;
        *packed = &packed[taken..];
        let Some(held) = &mut self.held else {
            return Ok(std::mem::take(self.decoder.get_mut()));
        };
        held.extend_from_slice(&before[..taken]);
        let unpacked = self.decoder.get_mut();
        if unpacked.len() < MAGIC.len() {
            return Ok(Vec::new());
        }
        let held = self.held.take().unwrap_or_default();
        if unpacked.starts_with(&MAGIC) {
            return Ok(std::mem::take(unpacked));
        }
        self.is_file_itself = true;
        Ok(held)
    }

    /// Returns the rest after all bytes have arrived.
    ///
    /// # Errors
    /// The data ended too early, or its checksum does not match what it unpacked to.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.is_file_itself {
            return Ok(Vec::new());
        }
        self.decoder.try_finish()?;
        let unpacked = std::mem::take(self.decoder.get_mut());
        // A short file is only complete here.
        match self.held {
            Some(held) if !unpacked.starts_with(&MAGIC) => Ok(held),
            _ => Ok(unpacked),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn unpack(name: &str, bytes: &[u8], size: usize) -> io::Result<Vec<u8>> {
        let mut unpacker = Unpacker::new(name);
        let mut file = Vec::new();
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                file.extend(unpacker.step(&mut piece)?);
            }
        }
        file.extend(unpacker.finish()?);
        Ok(file)
    }

    #[test]
    fn the_file_comes_out_however_it_is_cut() {
        let file: Vec<u8> = (0..200_000_u32).flat_map(|one| (one / 7).to_le_bytes()).collect();
        let once = packed(&file);
        let twice = packed(&once);
        let members = [packed(&file[..1000]), packed(&file[1000..])].concat();
        for size in [1, 7, 4096, usize::MAX] {
            assert!(unpack("mesh.stl", &once, size).expect("gzip") == file, "{size}");
            assert!(unpack("mesh.stl", &members, size).expect("gzip") == file, "{size}");
            assert!(unpack("scan.nii.gz", &twice, size).expect("gzip") == once, "{size}");
            assert!(unpack("scan.nii.gz", &once, size).expect("gzip") == once, "{size}");
            assert_eq!(unpack("a.gz", &packed(b""), size).expect("gzip"), packed(b""));
            assert_eq!(unpack("a.stl", &packed(b""), size).expect("gzip"), b"");
        }
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        let whole = packed(&[7; 5000]);
        let mut damaged = whole.clone();
        let place = damaged.len() - 6;
        damaged[place] ^= 1;
        for bytes in [&whole[..whole.len() - 1], &whole[..12], &whole[..5], &damaged, b"solid mesh"]
        {
            assert!(unpack("mesh.stl", bytes, 64).is_err(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn a_coding_is_known_or_refused_by_name() {
        let read = |values: &[&str]| ContentCoding::read(values.iter().map(|one| one.as_bytes()));
        for plain in [
            &[][..],
            &[""],
            &["identity"],
            &["Identity, identity"],
            &["aws-chunked"],
            &["UTF-8"],
            &["binary"],
        ] {
            assert_eq!(read(plain), Ok(ContentCoding::Plain), "{plain:?}");
        }
        for gzip in
            [&["gzip"][..], &["GZip"], &["x-gzip"], &["aws-chunked,gzip"], &["identity", "gzip"]]
        {
            assert_eq!(read(gzip), Ok(ContentCoding::Gzip), "{gzip:?}");
        }
        for refused in [
            &["br"][..],
            &["zstd"],
            &["deflate"],
            &["compress"],
            &["gzip, gzip"],
            &["gzip", "br"],
            &["\u{1b}[2J"],
        ] {
            let reason = read(refused).expect_err("refused");
            assert!(!reason.contains('\u{1b}'), "{reason}");
        }
    }
}
