//! JSON as RFC 8259 says, read from its exact text.
//!
//! Used for the Engine's bodies in both directions. Values stay slices of the original text, so
//! numbers keep their digits, unknown fields keep their bytes, and depth costs no stack: only what
//! is asked for is opened. The invariant: nothing here recurses deeper than it says.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Levels that [`fingerprint`] follows; each is one more pass over the text it encloses.
pub const MAX_DEPTH: usize = 128;

/// Checks that `bytes` are one JSON text (a leading byte-order mark is passed over).
/// Depth is not limited; invalid UTF-8 is not JSON.
pub fn parse(bytes: &[u8]) -> Result<&RawValue, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The members of an object in their order, repeated names included; `None` if it is none.
pub fn members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    // What begins otherwise is not worth the error that reading it would make.
    let text = value.get().starts_with('{').then_some(value.get())?;
    let Members(members) = serde_json::from_str(text).ok()?;
    Some(members)
}

/// The last member of that name, as most readers of JSON see it.
pub fn member<'a>(members: &[(String, &'a RawValue)], name: &str) -> Option<&'a RawValue> {
    members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// The elements of an array; `None` if it is none.
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    let text = value.get().starts_with('[').then_some(value.get())?;
    let Elements(elements) = serde_json::from_str(text).ok()?;
    Some(elements)
}

/// A string's text, lone surrogates replaced by U+FFFD; `None` if it is no string.
pub fn text(value: &RawValue) -> Option<String> {
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

/// `true` or `false`; `None` if it is neither.
pub fn boolean(value: &RawValue) -> Option<bool> {
    serde_json::from_str(value.get()).ok()
}

/// What an RFC 6901 pointer leads to.
pub fn at_pointer<'a>(value: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    let mut value = value;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = match members(value) {
            Some(found) => member(&found, &token)?,
            None => *elements(value)?.get(token.parse::<usize>().ok()?)?,
        };
    }
    Some(value)
}

/// [`at_pointer`] from an object whose members are known: the text is not read again for each.
pub fn at_pointer_in<'a>(
    members: &[(String, &'a RawValue)],
    pointer: &str,
) -> Option<&'a RawValue> {
    let rest = pointer.strip_prefix('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    let token = rest[..end].replace("~1", "/").replace("~0", "~");
    at_pointer(member(members, &token)?, &rest[end..])
}

/// One token of an RFC 6901 pointer, escaped.
pub fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Why a value has no fingerprint.
#[derive(Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// The object at this pointer has the name more than once.
    RepeatedName { pointer: String },
    /// Nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
}

/// SHA-256 over the value with white space and the order of names set aside, strings by what they
/// mean and numbers by their text: equal for two spellings of the same JSON value.
pub fn fingerprint(value: &RawValue) -> Result<[u8; 32], Ambiguous> {
    let mut hasher = Sha256::new();
    feed(value, &mut hasher, "", 0)?;
    Ok(hasher.finalize().into())
}

fn feed(
    value: &RawValue,
    hasher: &mut Sha256,
    pointer: &str,
    depth: usize,
) -> Result<(), Ambiguous> {
    if depth > MAX_DEPTH {
        return Err(Ambiguous::TooDeep);
    }
    if let Some(mut found) = members(value) {
        found.sort_by(|left, right| left.0.cmp(&right.0));
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let pointer = format!("{pointer}/{}", pointer_token(&pair[0].0));
            return Err(Ambiguous::RepeatedName { pointer });
        }
        hasher.update(b"{");
        for (name, member) in found {
            feed_text(&name, hasher);
            let pointer = format!("{pointer}/{}", pointer_token(&name));
            feed(member, hasher, &pointer, depth + 1)?;
        }
        hasher.update(b"}");
    } else if let Some(found) = elements(value) {
        hasher.update(b"[");
        for (position, element) in found.into_iter().enumerate() {
            feed(element, hasher, &format!("{pointer}/{position}"), depth + 1)?;
        }
        hasher.update(b"]");
    } else if let Some(text) = text(value) {
        feed_text(&text, hasher);
    } else {
        hasher.update(value.get());
        hasher.update(b",");
    }
    Ok(())
}

/// A length before the text keeps neighbouring strings apart.
fn feed_text(text: &str, hasher: &mut Sha256) {
    hasher.update(format!("\"{}:", text.len()));
    hasher.update(text);
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;
        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = Elements<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(ElementsVisitor)
    }
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
        let found = members(lone).expect("object");
        assert!(text(found[0].1).is_some());
        assert_eq!(found.len(), 2);
        for text in ["", "{", "NaN", "{'a':1}", "[1,]", "{} {}", "01", "\"\u{1}\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_pointer_leads_through_objects_and_arrays() {
        let value = parse(br#"{"a/b":[{"~":"x"}]}"#).expect("JSON");
        assert_eq!(at_pointer(value, "/a~1b/0/~0").and_then(text).as_deref(), Some("x"));
        assert!(at_pointer(value, "/a~1b/1").is_none());
        let members = members(value).expect("an object");
        for pointer in ["/a~1b/0/~0", "/a~1b/0", "/a~1b", "/a~1b/1", "/a", "/"] {
            let (found, expected) = (at_pointer_in(&members, pointer), at_pointer(value, pointer));
            assert_eq!(found.map(RawValue::get), expected.map(RawValue::get), "{pointer}");
        }
    }
}
