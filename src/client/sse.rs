//! Parses `text/event-stream` from pieces of any size.
//!
//! Called with every piece of an event stream. Source: the HTML standard, section 9.2. Memory is
//! bounded: at most [`MAX_EVENT`] bytes of an unfinished event are held.

/// Largest event, and longest line, in bytes: an event holds an id, a type and a small object.
const MAX_EVENT: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event of a stream. Its id is in its data as well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Empty if the stream names no type.
    pub(super) kind: String,
    pub(super) data: String,
}

/// An event is larger than any event of this service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The unfinished event.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    kind: String,
    data: Option<String>,
    /// The last byte was a carriage return: a line feed right after it is part of the same line
    /// end.
    is_after_return: bool,
    is_begun: bool,
}

impl Parser {
    /// Parses the next piece; returns the events that it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in piece {
            let is_second_half = std::mem::take(&mut self.is_after_return) && byte == b'\n';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => {
                    self.is_after_return = byte == b'\r';
                    events.extend(self.end_line()?);
                }
                _ => self.line.push(byte),
            }
            if self.line.len() > MAX_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, TooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.is_begun, true) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            return Ok(self.data.take().map(|data| Event { kind, data }));
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
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

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn every_cut_and_every_line_end_reads_the_same() {
        let stream = "\u{feff}: hello\nid: 7\nevent: job.finished\ndata: {\"a\":\ndata: 1}\n\n\
            :\n\nid: 8\n\nevent: lost\n\n: x\ndata\n\ndata:x: y\nretry: 10\nunknown: z\n\n\
            data: not ended\n";
        let expected = [event("job.finished", "{\"a\":\n1}"), event("", ""), event("", "x: y")];
        for line_end in ["\n", "\r\n", "\r"] {
            let bytes = stream.replace('\n', line_end).into_bytes();
            for size in 1..=bytes.len() {
                let mut parser = Parser::default();
                let pieces = bytes.chunks(size);
                let events: Vec<Event> =
                    pieces.flat_map(|piece| parser.push(piece).expect("small")).collect();
                assert_eq!(events, expected, "{line_end:?}, pieces of {size}");
            }
        }
    }

    #[test]
    fn only_one_space_is_taken_from_a_value() {
        let events = Parser::default().push(b"data:  two\n\n").expect("small");
        assert_eq!(events, [event("", " two")]);
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
