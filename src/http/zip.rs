//! The part of the zip format that bundles need: stored files, uncompressed, one after the other.
//!
//! Used by `bundle`. Invariants: the archive's length is known before its first byte, so one that
//! breaks off never looks complete; each header holds the size and CRC of its file, so a streaming
//! reader needs nothing from the end; sizes beyond 32 bits are written as ZIP64 (APPNOTE 6.3.9).

use jiff::{Timestamp, tz::Offset};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const DIRECTORY_END_64: u32 = 0x0606_4b50;
const DIRECTORY_END_64_LOCATOR: u32 = 0x0706_4b50;
const DIRECTORY_END: u32 = 0x0605_4b50;

/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;
/// The version that a reader must support: plain entries, or ZIP64.
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
const MADE_ON_UNIX: u16 = 3 << 8;
/// A regular file, writable by its owner and readable by all.
const MODE: u32 = 0o100_644 << 16;
const EXTRA_64: u16 = 1;

/// A field with its largest value means that ZIP64's field holds the real one.
const FULL_32: u64 = 0xffff_ffff;
const FULL_16: u64 = 0xffff;

/// An archive to write.
pub(super) struct Archive {
    entries: Vec<Entry>,
    /// The offset of the directory.
    content_bytes: u64,
    dos_time: u16,
    dos_date: u16,
}

struct Entry {
    name: String,
    bytes: u64,
    offset: u64,
}

impl Archive {
    /// An archive of files by name and size, all with the time `modified`.
    pub(super) fn new(files: Vec<(String, u64)>, modified: Timestamp) -> Self {
        let (dos_date, dos_time) = dos(modified);
        let mut archive = Self { entries: Vec::new(), content_bytes: 0, dos_time, dos_date };
        for (name, bytes) in files {
            let entry = Entry { name, bytes, offset: archive.content_bytes };
            archive.content_bytes += archive.header_of(&entry, 0).len() as u64 + bytes;
            archive.entries.push(entry);
        }
        archive
    }

    /// Length of the whole archive in bytes.
    pub(super) fn length(&self) -> u64 {
        let nothing = vec![0; self.entries.len()];
        self.content_bytes + self.directory(&nothing).len() as u64
    }

    /// The header before a file's content, given its CRC-32.
    pub(super) fn header(&self, position: usize, crc: u32) -> Vec<u8> {
        self.header_of(&self.entries[position], crc)
    }

    /// The directory after all files, given their CRC-32s in order.
    pub(super) fn directory(&self, crcs: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (entry, crc) in self.entries.iter().zip(crcs) {
            self.write_directory_entry(&mut bytes, entry, *crc);
        }
        let (count, length) = (self.entries.len() as u64, bytes.len() as u64);
        if count >= FULL_16 || length >= FULL_32 || self.content_bytes >= FULL_32 {
            let end = self.content_bytes + length;
            put_32(&mut bytes, DIRECTORY_END_64);
            // The length of the rest of this record.
            put_64(&mut bytes, 44);
            put_16(&mut bytes, VERSION_64 | MADE_ON_UNIX);
            put_16(&mut bytes, VERSION_64);
            put_64(&mut bytes, 0); // the numbers of two disks
            put_64(&mut bytes, count);
            put_64(&mut bytes, count);
            put_64(&mut bytes, length);
            put_64(&mut bytes, self.content_bytes);
            put_32(&mut bytes, DIRECTORY_END_64_LOCATOR);
            put_32(&mut bytes, 0);
            put_64(&mut bytes, end);
            put_32(&mut bytes, 1); // disks in all
        }
        put_32(&mut bytes, DIRECTORY_END);
        put_32(&mut bytes, 0);
        put_16(&mut bytes, count.min(FULL_16) as u16);
        put_16(&mut bytes, count.min(FULL_16) as u16);
        put_32(&mut bytes, length.min(FULL_32) as u32);
        put_32(&mut bytes, self.content_bytes.min(FULL_32) as u32);
        put_16(&mut bytes, 0); // no comment
        bytes
    }

    fn header_of(&self, entry: &Entry, crc: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_32(&mut bytes, LOCAL_HEADER);
        put_16(&mut bytes, if entry.is_large() { VERSION_64 } else { VERSION });
        self.put_common(&mut bytes);
        put_32(&mut bytes, crc);
        let size = entry.bytes.min(FULL_32) as u32;
        put_32(&mut bytes, size);
        put_32(&mut bytes, size);
        put_16(&mut bytes, entry.name.len() as u16);
        let extra: &[u64] = if entry.is_large() { &[entry.bytes; 2] } else { &[] };
        put_16(&mut bytes, extra_length(extra));
        bytes.extend_from_slice(entry.name.as_bytes());
        put_extra(&mut bytes, extra);
        bytes
    }

    fn write_directory_entry(&self, bytes: &mut Vec<u8>, entry: &Entry, crc: u32) {
        let mut extra = Vec::new();
        if entry.is_large() {
            extra.extend([entry.bytes, entry.bytes]);
        }
        if entry.offset >= FULL_32 {
            extra.push(entry.offset);
        }
        let version = if extra.is_empty() { VERSION } else { VERSION_64 };
        put_32(bytes, DIRECTORY_ENTRY);
        put_16(bytes, version | MADE_ON_UNIX);
        put_16(bytes, version);
        self.put_common(bytes);
        put_32(bytes, crc);
        put_32(bytes, entry.bytes.min(FULL_32) as u32);
        put_32(bytes, entry.bytes.min(FULL_32) as u32);
        put_16(bytes, entry.name.len() as u16);
        put_16(bytes, extra_length(&extra));
        put_16(bytes, 0); // no comment
        put_32(bytes, 0); // its disk, and what it holds
        put_32(bytes, MODE);
        put_32(bytes, entry.offset.min(FULL_32) as u32);
        bytes.extend_from_slice(entry.name.as_bytes());
        put_extra(bytes, &extra);
    }

    /// Flags, method (stored), time and date.
    fn put_common(&self, bytes: &mut Vec<u8>) {
        put_16(bytes, FLAGS);
        put_16(bytes, 0);
        put_16(bytes, self.dos_time);
        put_16(bytes, self.dos_date);
    }
}

impl Entry {
    fn is_large(&self) -> bool {
        self.bytes >= FULL_32
    }
}

fn extra_length(values: &[u64]) -> u16 {
    if values.is_empty() { 0 } else { 4 + 8 * values.len() as u16 }
}

fn put_extra(bytes: &mut Vec<u8>, values: &[u64]) {
    if !values.is_empty() {
        put_16(bytes, EXTRA_64);
        put_16(bytes, 8 * values.len() as u16);
        values.iter().for_each(|value| put_64(bytes, *value));
    }
}

fn put_16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Date and time in MS-DOS format, which counts from 1980 and in steps of two seconds.
fn dos(at: Timestamp) -> (u16, u16) {
    let at = Offset::UTC.to_datetime(at);
    let year = at.year().clamp(1980, 2107) - 1980;
    let date = year << 9 | i16::from(at.month()) << 5 | i16::from(at.day());
    let [hour, minute, second] = [at.hour(), at.minute(), at.second()].map(|part| part as u16);
    (date as u16, (hour << 11) | (minute << 5) | (second / 2))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Seek, SeekFrom};

    use super::*;

    /// An archive whose files hold only zeros, too large to write out.
    struct Imagined {
        /// The parts that are not zeros, with their offsets.
        parts: Vec<(u64, Vec<u8>)>,
        length: u64,
        at: u64,
    }

    impl Imagined {
        fn new(archive: &Archive) -> Self {
            let mut parts = Vec::new();
            for (position, entry) in archive.entries.iter().enumerate() {
                parts.push((entry.offset, archive.header(position, 0)));
            }
            parts.push((archive.content_bytes, archive.directory(&vec![0; archive.entries.len()])));
            Self { parts, length: archive.length(), at: 0 }
        }
    }

    impl Read for Imagined {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min((self.length - self.at) as usize);
            for (offset, byte) in (self.at..).zip(&mut buffer[..count]) {
                let part = self.parts.iter().rev().find(|(start, _)| *start <= offset);
                let found = part.and_then(|(start, part)| part.get((offset - start) as usize));
                *byte = found.copied().unwrap_or(0);
            }
            self.at += count as u64;
            Ok(count)
        }
    }

    impl Seek for Imagined {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                SeekFrom::End(back) => self.length.saturating_add_signed(back),
                SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            };
            Ok(self.at)
        }
    }

    #[test]
    fn files_of_every_size_are_found_by_another_reader() {
        let modified: Timestamp = "2026-11-24T06:30:10Z".parse().expect("a time");
        let files = [
            ("small.stl", 5),
            ("Müller-skull.stl", 3 << 30),
            ("as large as 32 bits say.stl", FULL_32),
            ("large.stl", 6 << 30),
            ("behind all that.stl", 7),
        ];
        let given = files.map(|(name, bytes)| (name.to_owned(), bytes));
        let archive = Archive::new(given.into(), modified);
        let mut read = zip::ZipArchive::new(Imagined::new(&archive)).expect("it is a zip");
        assert_eq!(read.len(), files.len());
        for (position, (name, bytes)) in files.into_iter().enumerate() {
            let file = read.by_index(position).expect("its header is where it is said to be");
            assert_eq!((&*file.name().expect("a name"), file.size()), (name, bytes));
            let header = archive.header(position, 0).len() as u64;
            let start = archive.entries[position].offset + header;
            assert_eq!(file.data_start(), Some(start), "{name}");
            let time = file.last_modified().expect("a time");
            assert_eq!((time.year(), time.day(), time.minute(), time.second()), (2026, 24, 30, 10));
        }
    }
}
