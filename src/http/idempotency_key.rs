//! Parses `Idempotency-Key`, both as the draft standard writes it and as most callers do.
//!
//! Called by submissions. Invariant: `"k"` and `k` are the same key.

use axum::http::HeaderMap;

use super::{error::Problem, parameters::MAX_IDEMPOTENCY_KEY};

const NAME: &str = "idempotency-key";

/// The key of a request, without its quotes.
///
/// # Errors
/// `validation-failed`: several keys, an empty header, or a key that is not valid.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(NAME).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let invalid = |detail: String| Problem::invalid("/Idempotency-Key", detail);
    let wrong =
        || invalid(format!("expected one key of 1 to {MAX_IDEMPOTENCY_KEY} visible characters"));
    let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let text = first.to_str().ok().filter(|text| text.bytes().all(is_visible)).ok_or_else(wrong)?;
    if given.next().is_some() {
        return Err(wrong());
    }
    let text = text.trim_matches(' ');
    let key = match text.strip_prefix('"') {
        None => text.to_owned(),
        Some(rest) => unquote(rest).ok_or_else(|| {
            invalid("a key that begins with a quote is a string: \"key\", with \\\" for a quote and \\\\ for a backslash in it".into())
        })?,
    };
    if (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()) { Ok(Some(key)) } else { Err(wrong()) }
}

/// Parses the rest of an RFC 8941 string after its opening quote. Parameters after it are ignored.
fn unquote(rest: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => break,
            character => key.push(character),
        }
    }
    let behind = characters.as_str();
    (behind.is_empty() || behind.starts_with(';')).then_some(key)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(value: &str) -> Result<Option<String>, Problem> {
        read(&HeaderMap::from_iter([(
            NAME.parse().expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        )]))
    }

    #[test]
    fn a_key_is_the_same_quoted_and_plain() {
        for (value, expected) in [
            ("k", "k"),
            ("\"k\"", "k"),
            ("  \"k\" ", "k"),
            ("\"k\";created=1", "k"),
            (r#""a \"b\" \\c""#, r#"a "b" \c"#),
            (r#"a "b" \c"#, r#"a "b" \c"#),
            ("k\"", "k\""),
            ("'k'", "'k'"),
        ] {
            assert_eq!(key(value).expect("a key").as_deref(), Some(expected), "{value}");
        }
        let longest = format!("\"{}\"", "x".repeat(MAX_IDEMPOTENCY_KEY));
        assert_eq!(key(&longest).expect("a key").map(|key| key.len()), Some(MAX_IDEMPOTENCY_KEY));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let too_long = "x".repeat(MAX_IDEMPOTENCY_KEY + 1);
        for value in [
            "",
            " ",
            "\"\"",
            "\"",
            "\"k",
            "\"k\\\"",
            "\"k\\n\"",
            "\"a\"b",
            "\"a\", \"b\"",
            &too_long,
        ] {
            assert!(matches!(key(value), Err(Problem::ValidationFailed(_))), "{value}");
        }
    }
}
