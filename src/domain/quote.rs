//! Makes the words of a foreign server fit to be quoted in a log, a problem or an event.
//!
//! Used for storages and token endpoints. Invariant: a quotation is one line, is bounded, and holds
//! nothing that may be a credential: no query of a link, no signature, no key, no token.

/// The longest quotation, in characters.
const MAX_CHARS: usize = 300;

/// The shortest run of letters and digits that may be a key, a token or a signature: an AWS key id
/// has 20 characters.
const SHORTEST_CREDENTIAL: usize = 20;

const HIDDEN: &str = "[redacted]";

/// Names before a `=` whose values are hidden, whatever their length.
const NAMES: [&str; 8] =
    ["signature", "sig", "secret", "token", "key", "password", "credential", "keyid"];

/// One line of `text` without possible credentials; `None` if nothing remains.
pub fn quote(text: &str) -> Option<String> {
    let mut line = String::new();
    // Cut first, because foreign texts may be long.
    let beginning: String = text.chars().take(4 * MAX_CHARS).collect();
    for word in beginning.split(|one: char| one.is_whitespace() || one.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&without_credentials(word));
    }
    if line.chars().count() > MAX_CHARS {
        line = line.chars().take(MAX_CHARS - 1).chain(['…']).collect();
    }
    (!line.is_empty()).then_some(line)
}

fn without_credentials(word: &str) -> String {
    // The query of a link.
    if let Some((before, query)) = word.split_once('?')
        && query.contains('=')
    {
        return format!("{}?{HIDDEN}", without_credentials(before));
    }
    let mut shown = String::with_capacity(word.len());
    let mut name_before = None;
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|one| !is_of_word(one)).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        let named = name_before.take();
        let is_hidden = !run.is_empty() && named.is_some_and(is_credential_name);
        shown.push_str(if is_hidden || is_credential(run) { HIDDEN } else { run });
        let mut marks = behind.chars();
        if let Some(mark) = marks.next() {
            shown.push(mark);
            let is_quote = run.is_empty() && matches!(mark, '"' | '\'');
            name_before = match mark {
                '=' => Some(run),
                _ if is_quote => named,
                _ => None,
            };
        }
        rest = marks.as_str();
    }
    shown
}

/// Characters of keys, tokens and Base64; `=` ends a name or is padding.
fn is_of_word(one: char) -> bool {
    one.is_alphanumeric() || matches!(one, '+' | '/' | '_' | '-' | '%')
}

fn is_credential(run: &str) -> bool {
    let is_mixed = run.bytes().any(|byte| byte.is_ascii_digit())
        && run.bytes().any(|byte| byte.is_ascii_alphabetic());
    let length = run.chars().count();
    length >= SHORTEST_CREDENTIAL && is_mixed || length >= 2 * SHORTEST_CREDENTIAL
}

fn is_credential_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|known| name.ends_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_holds_no_credential() {
        for (text, expected) in [
            ("Request has expired", "Request has expired"),
            ("two\r\n lines\u{0}", "two lines"),
            (
                "see https://b.example/x?X-Amz-Signature=abc&a=b for it",
                "see https://b.example/x?[redacted] for it",
            ),
            ("key AKIAIOSFODNN7EXAMPLE is unknown", "key [redacted] is unknown"),
            ("sig=ab, Signature=\"x\"", "sig=[redacted], Signature=\"[redacted]\""),
            ("(bWq2s1WEIj+Ydj0vQ697zp+IXMU=)", "([redacted]=)"),
            ("Time:2026-03-01T12:10:00.1234567Z", "Time:2026-03-01T12:10:00.1234567Z"),
            ("what-a-user-did-not-expect", "what-a-user-did-not-expect"),
        ] {
            assert_eq!(quote(text).as_deref(), Some(expected));
        }
        assert_eq!(quote(" \n\t"), None);
        assert_eq!(quote(&"ä ".repeat(10_000)).expect("cut").chars().count(), MAX_CHARS);
    }
}
