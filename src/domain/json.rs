//! JSON as defined by RFC 8259, read from its exact text.
//!
//! Used for the Engine's bodies in both directions. Values stay slices of the original text, so
//! numbers keep their digits, unknown fields keep their bytes, and depth costs no stack: only the
//! requested parts are opened. Only [`fingerprint`] recurses, up to [`MAX_DEPTH`] levels. Members
//! and elements are iterated one by one, so that a text with millions of them needs no memory
//! beyond the text itself.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de::Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Levels that [`fingerprint`] follows; each level is one more pass over the text inside it.
pub const MAX_DEPTH: usize = 128;

/// The most bytes that one byte of a string can take in its written form: `\u0001`.
const ESCAPE_BYTES: usize = 6;

/// One JSON value, as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// Checks that `bytes` are one JSON text (a leading byte-order mark is skipped). Depth is not
/// limited; invalid UTF-8 is not JSON.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let value: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Json(value.get()))
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

impl<'a> Json<'a> {
    /// The text.
    pub fn get(self) -> &'a str {
        self.0
    }

    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// A copy of the text.
    pub fn to_raw(self) -> Box<RawValue> {
        RawValue::from_string(self.0.to_owned()).expect("a part of a JSON text is JSON")
    }

    /// The members of an object in their order, including repeated names; `None` if it is not an
    /// object.
    pub fn members(self) -> Option<Members<'a>> {
        self.0.starts_with('{').then_some(Members { text: self.0, at: 1 })
    }

    /// The elements of an array; `None` if it is not an array.
    pub fn elements(self) -> Option<Elements<'a>> {
        self.0.starts_with('[').then_some(Elements { text: self.0, at: 1 })
    }

    /// An object's members of these names. Of a repeated name the last member counts, as most JSON
    /// parsers do; `None` if it is not an object.
    pub fn find<const NAMES: usize>(
        self,
        names: [&str; NAMES],
    ) -> Option<[Option<Json<'a>>; NAMES]> {
        let mut found = [None; NAMES];
        for (name, value) in self.members()? {
            for (place, wanted) in found.iter_mut().zip(names) {
                if name.is(wanted) {
                    *place = Some(value);
                }
            }
        }
        Some(found)
    }

    /// An object's last member of this name.
    pub fn member(self, name: &str) -> Option<Json<'a>> {
        self.find([name]).and_then(|[found]| found)
    }

    /// The text of a string, with lone surrogates replaced by U+FFFD; `None` if it is not a string.
    pub fn text(self) -> Option<String> {
        decode(self.0).map(Cow::into_owned)
    }

    /// Whether it is a string that certainly has more than this many bytes, judged by its written
    /// length alone.
    pub fn is_text_beyond(self, bytes: usize) -> bool {
        self.0.starts_with('"') && self.0.len() > bytes.saturating_mul(ESCAPE_BYTES) + 2
    }

    /// `true` or `false`; `None` if it is not a boolean.
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// The value at an RFC 6901 pointer.
    pub fn at_pointer(self, pointer: &str) -> Option<Json<'a>> {
        let mut value = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = match value.elements() {
                Some(mut elements) => elements.nth(token.parse::<usize>().ok()?)?,
                None => value.member(&token)?,
            };
        }
        Some(value)
    }
}

/// The name of a member, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Whether the name is `text`.
    pub fn is(self, text: &str) -> bool {
        let (written, needed) = (self.0.as_bytes(), text.len() + 2);
        if written.len() == needed {
            return written[1..needed - 1] == *text.as_bytes() && !text.contains('\\');
        }
        // Only a name with escapes is longer in its written form.
        written.len() > needed
            && written.len() <= text.len() * ESCAPE_BYTES + 2
            && written.contains(&b'\\')
            && self.text() == text
    }

    /// The decoded name.
    pub fn text(self) -> Cow<'a, str> {
        decode(self.0).unwrap_or_default()
    }

    /// See [`Json::is_text_beyond`].
    pub fn is_beyond(self, bytes: usize) -> bool {
        Json(self.0).is_text_beyond(bytes)
    }

    /// As written, including the quotes.
    pub fn get(self) -> &'a str {
        self.0
    }
}

/// See [`Json::members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Name<'a>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = next_value(self.text, &mut self.at)?;
        let value = next_value(self.text, &mut self.at)?;
        Some((Name(name), Json(value)))
    }
}

/// See [`Json::elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Json<'a>> {
        next_value(self.text, &mut self.at).map(Json)
    }
}

/// The next value or name at or after `at`, which is moved to its end; `None` at the end of the
/// object or array. The text is known to be JSON, so nothing is checked.
///
/// Plain loops, here and below: every byte of every body passes through them.
fn next_value<'a>(text: &'a str, at: &mut usize) -> Option<&'a str> {
    let bytes = text.as_bytes();
    let mut start = *at;
    while start < bytes.len() && is_between(bytes[start]) {
        start += 1;
    }
    let end = match *bytes.get(start)? {
        b']' | b'}' => return None,
        b'"' => end_of_string(bytes, start),
        b'{' | b'[' => end_of_group(bytes, start),
        _ => {
            let mut end = start;
            while end < bytes.len() && !is_between(bytes[end]) && !matches!(bytes[end], b']' | b'}')
            {
                end += 1;
            }
            end
        }
    };
    *at = end;
    text.get(start..end)
}

/// Whether a byte only separates values.
fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')
}

/// The position after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The position after the object or array that begins at `start`.
fn end_of_group(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The text of a quoted string; `None` if it is not a string.
fn decode(written: &str) -> Option<Cow<'_, str>> {
    let inner = written.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let Text(text) = serde_json::from_str(written).ok()?;
    Some(Cow::Owned(text))
}

/// The beginning of the text of a quoted string, at least `bytes` of it, and whether that is all of
/// it; `None` if it is not a string.
pub fn beginning(written: &str, bytes: usize) -> Option<(String, bool)> {
    if !Json(written).is_text_beyond(bytes) {
        return decode(written).map(|text| (text.into_owned(), true));
    }
    let mut end = 1;
    while end <= bytes.saturating_mul(ESCAPE_BYTES) {
        end += if written.as_bytes().get(end) == Some(&b'\\') { 2 } else { 1 };
    }
    // The cut may split a character or an escape, which is then left out.
    (0..=ESCAPE_BYTES * 2).find_map(|cut| {
        let part = written.get(..end.checked_sub(cut)?)?;
        Some((decode(&format!("{part}\""))?.into_owned(), false))
    })
}

/// Escapes one token of an RFC 6901 pointer.
pub fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The reason why a value has no fingerprint.
#[derive(Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// The object at this pointer has a name more than once.
    RepeatedName { pointer: String },
    /// Nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
}

impl Ambiguous {
    /// The same, seen from one level further up.
    fn below(self, token: &str) -> Self {
        match self {
            Self::RepeatedName { pointer } => {
                Self::RepeatedName { pointer: format!("/{}{pointer}", pointer_token(token)) }
            }
            Self::TooDeep => Self::TooDeep,
        }
    }
}

/// SHA-256 over the value, ignoring white space and the order of names, with strings compared by
/// their meaning and numbers by their text: two spellings of the same JSON value are equal.
///
/// # Errors
/// [`Ambiguous`]: a name is repeated, or the value is nested too deep.
pub fn fingerprint(value: Json<'_>) -> Result<[u8; 32], Ambiguous> {
    let mut hasher = Sha256::new();
    feed(value, &mut hasher, 0)?;
    Ok(hasher.finalize().into())
}

fn feed(value: Json<'_>, hasher: &mut Sha256, depth: usize) -> Result<(), Ambiguous> {
    if depth > MAX_DEPTH {
        return Err(Ambiguous::TooDeep);
    }
    if let Some(members) = value.members() {
        let mut found: Vec<(Cow<'_, str>, Json<'_>)> =
            members.map(|(name, value)| (name.text(), value)).collect();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Ambiguous::RepeatedName { pointer: String::new() }.below(&pair[0].0));
        }
        hasher.update(b"{");
        for (name, member) in found {
            feed_text(&name, hasher);
            feed(member, hasher, depth + 1).map_err(|ambiguous| ambiguous.below(&name))?;
        }
        hasher.update(b"}");
    } else if let Some(elements) = value.elements() {
        hasher.update(b"[");
        for (position, element) in elements.enumerate() {
            feed(element, hasher, depth + 1)
                .map_err(|ambiguous| ambiguous.below(&position.to_string()))?;
        }
        hasher.update(b"]");
    } else if let Some(text) = decode(value.get()) {
        feed_text(&text, hasher);
    } else {
        hasher.update(value.get());
        hasher.update(b",");
    }
    Ok(())
}

/// The length before the text separates neighbouring strings.
fn feed_text(text: &str, hasher: &mut Sha256) {
    hasher.update(format!("\"{}:", text.len()));
    hasher.update(text);
}

/// A string read as bytes, because RFC 8259 allows `"\ud800"` and Rust's strings do not.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Result<[u8; 32], Ambiguous> {
        fingerprint(parse(text.as_bytes()).expect("JSON"))
    }

    #[test]
    fn white_space_and_the_order_of_names_do_not_change_the_fingerprint() {
        assert_eq!(
            print(r#"{"a":[1,"x"],"b":{}}"#),
            print(" { \"b\" : { } ,\n\"a\":[1, \"\\u0078\"]}")
        );
    }

    #[test]
    fn numbers_are_compared_by_their_text() {
        assert_ne!(print("[1]"), print("[1.0]"));
        assert_ne!(print("[12]"), print("[1,2]"));
        assert_ne!(print(r#"["1"]"#), print("[1]"));
        assert_ne!(print("123456789012345678901"), print("123456789012345678902"));
    }

    #[test]
    fn a_repeated_name_and_bottomless_nesting_have_no_fingerprint() {
        let repeated = Ambiguous::RepeatedName { pointer: "/a/0/x".into() };
        assert_eq!(print(r#"{"a":[{"x":1,"\u0078":1}]}"#), Err(repeated));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(print(&deep), Err(Ambiguous::TooDeep));
    }

    #[test]
    fn everything_rfc_8259_allows_is_read() {
        for text in [r#"{"n":1e999,"s":"\ud800","\udfff":null}"#, "\u{feff}{}", "null", "\"x\""] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
        let lone = parse(br#"{"s":"\ud800","\udfff":1}"#).expect("JSON");
        let found: Vec<_> = lone.members().expect("object").collect();
        assert_eq!(found[0].1.text().as_deref(), Some("\u{fffd}\u{fffd}\u{fffd}"));
        assert_eq!((found.len(), found[1].0.text().is_empty()), (2, false));
        for text in ["", "{", "NaN", "{'a':1}", "[1,]", "{} {}", "01", "\"\u{1}\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_pointer_leads_through_objects_and_arrays() {
        let value = parse(br#"{"a/b":[{"~":"x"}]}"#).expect("JSON");
        let at = |pointer| value.at_pointer(pointer).map(Json::get);
        assert_eq!(at("/a~1b/0/~0"), Some("\"x\""));
        assert_eq!(at("/a~1b/0"), Some(r#"{"~":"x"}"#));
        assert_eq!(at(""), Some(value.get()));
        for nowhere in ["/a~1b/1", "/a~1b/x", "/a", "/"] {
            assert_eq!(at(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn members_and_elements_are_those_that_were_written() {
        let text = " { \"a\" : [ 1.10 ,\t\"]}\\\"\\\\\" , [ ] , { } ,true ] ,\n\"\\u0062\": {\"c\":\"}\"},\"a\":null } ";
        let value = parse(text.as_bytes()).expect("JSON");
        let members: Vec<_> =
            value.members().expect("an object").map(|(name, value)| (name.text(), value)).collect();
        let names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b", "a"]);
        let elements: Vec<&str> =
            members[0].1.elements().expect("an array").map(Json::get).collect();
        assert_eq!(elements, ["1.10", "\"]}\\\"\\\\\"", "[ ]", "{ }", "true"]);
        assert_eq!(
            value.find(["b", "a", "z"]).expect("an object").map(|one| one.map(Json::get)),
            [Some("{\"c\":\"}\"}"), Some("null"), None]
        );
        assert!(value.elements().is_none() && members[0].1.members().is_none());
        for empty in ["{}", "[]", "{ }", "[\n]"] {
            let value = parse(empty.as_bytes()).expect("JSON");
            let members = value.members().map_or(0, Iterator::count);
            assert_eq!(members + value.elements().map_or(0, Iterator::count), 0);
        }
    }

    #[test]
    fn the_beginning_of_a_string_needs_no_more_than_itself() {
        let value = |text: &str| serde_json::to_string(text).expect("JSON");
        let long = "\u{1}ä🦷\\".repeat(10_000);
        let written = value(&long);
        let (part, is_all) = beginning(&written, 100).expect("a string");
        assert!(long.starts_with(&part) && !is_all && (100..1_000).contains(&part.len()));
        let surrogates = format!("\"{}\"", "\\ud83e\\uddb7".repeat(5_000));
        let (part, _) = beginning(&surrogates, 100).expect("a string");
        assert!(part.starts_with("🦷🦷") && (100..1_000).contains(&part.len()));
        assert_eq!(beginning("\"x\"", 1), Some(("x".into(), true)));
        assert_eq!(beginning("7", 1), None);
    }
}
