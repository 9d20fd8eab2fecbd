//! Reads `text/event-stream` as it comes, cut anywhere.
//!
//! Called with every piece of a stream of events. Source: the HTML standard, section 9.2. The
//! invariant: whatever is sent, no more than [`MAX_EVENT`] bytes of an unfinished event are held.

/// Bytes of an event, or of a line: an event holds an id, a type and a small object.
const MAX_EVENT: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An event's data; its other fields stand in there as well.
    Data(String),
    /// What stands after the colon, without the space before it.
    Comment(String),
}

/// An event is larger than any of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// What was read and is not whole yet.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Option<String>,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    is_after_return: bool,
    is_begun: bool,
}

impl Parser {
    /// Takes the next piece; answers what has become whole with it.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Part>, TooLarge> {
        let mut parts = Vec::new();
        for &byte in piece {
            let is_second_half = std::mem::take(&mut self.is_after_return) && byte == b'\n';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => {
                    self.is_after_return = byte == b'\r';
                    parts.extend(self.end_line()?);
                }
                _ => self.line.push(byte),
            }
            if self.line.len() > MAX_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(parts)
    }

    fn end_line(&mut self) -> Result<Option<Part>, TooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.is_begun, true) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            return Ok(self.data.take().map(Part::Data));
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Ok(Some(Part::Comment(value.to_owned()))),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        match &self.data {
            Some(data) if data.len() > MAX_EVENT => Err(TooLarge),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Part {
        Part::Data(text.to_owned())
    }

    fn comment(text: &str) -> Part {
        Part::Comment(text.to_owned())
    }

    #[test]
    fn every_cut_and_every_line_end_reads_the_same() {
        let stream = "\u{feff}: hello\nid: 7\nevent: job.finished\ndata: {\"a\":\ndata: 1}\n\n\
            :\n\nid: 8\n\ndata\n\ndata:x: y\nretry: 10\nunknown: z\n\ndata: not ended\n";
        let expected = [comment("hello"), data("{\"a\":\n1}"), comment(""), data(""), data("x: y")];
        for line_end in ["\n", "\r\n", "\r"] {
            let bytes = stream.replace('\n', line_end).into_bytes();
            for size in 1..=bytes.len() {
                let mut parser = Parser::default();
                let pieces = bytes.chunks(size);
                let parts: Vec<Part> =
                    pieces.flat_map(|piece| parser.push(piece).expect("small")).collect();
                assert_eq!(parts, expected, "{line_end:?}, pieces of {size}");
            }
        }
    }

    #[test]
    fn only_one_space_is_taken_from_a_value() {
        let parts = Parser::default().push(b"data:  two\n\n").expect("small");
        assert_eq!(parts, [data(" two")]);
    }

    #[test]
    fn what_never_ends_is_not_held() {
        let mut parser = Parser::default();
        let endless = [b'x'; 4096];
        assert!((0..1000).any(|_| parser.push(&endless).is_err()), "a line without end");
        let mut parser = Parser::default();
        let lines = b"data: 0123456789\n".repeat(256);
        assert!((0..1000).any(|_| parser.push(&lines).is_err()), "an event without end");
    }
}
