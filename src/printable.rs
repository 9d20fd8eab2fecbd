//! Makes foreign text safe to show: on a terminal, in a line of the log, or in a file of either.
//!
//! Everything that the program writes for people passes through here: standard output and error of
//! the commands, the log, the settings' errors. Invariant: the output contains no character that
//! controls a terminal, ends a line, or invisibly changes the order or the presence of others.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether output to a terminal may be coloured: neither `NO_COLOR` nor `TERM=dumb` is set.
pub fn may_have_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !is_set("NO_COLOR") && !is_dumb
}

/// The text in one line, with each control character escaped as in Rust: `\n`, `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, |character, shown| shown.extend(character.escape_default()))
}

/// JSON in one line, with the same value: control characters inside its texts are written as
/// `\u001b`. White space between its parts becomes blanks.
pub fn json(text: &str) -> Cow<'_, str> {
    replaced(text, |character, shown| match character {
        '\t' | '\n' | '\r' => shown.push(' '),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("a String takes everything");
            }
        }
    })
}

fn replaced(text: &str, replace: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match steers(character) {
            true => replace(character, &mut shown),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character acts instead of being visible: control characters (C0, C1, delete), line and
/// paragraph separators, direction marks, invisible operators and tags. Joiners are kept: scripts
/// and emoji need them.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours, a title, the clipboard, a link; C1's own CSI; delete, backspace; both separators;
    /// direction; what nobody sees.
    const STEERING: &str = "\u{1b}[31m \u{1b}]0;t\u{7} \u{1b}]52;c;eA==\u{1b}\\ \
        \u{1b}]8;;http://x\u{1b}\\ \u{9b}2J \u{90}q\u{9c} \u{7f}\u{8}\u{0} \r\n\t\u{b}\u{c}\u{85} \
        \u{2028}\u{2029} \u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c} \
        \u{200b}\u{2060}\u{feff}\u{fff9}\u{e0041}";

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(line("a\u{1b}[31mb\r\n\u{202e}c"), "a\\u{1b}[31mb\\r\\n\\u{202e}c");
        let shown = line(STEERING);
        assert!(shown.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{shown}");
        assert_eq!(line(&shown), shown, "twice is once");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ STEERING: [STEERING, 1.5, null] });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            let shown = json(&text);
            assert!(shown.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        }
    }

    #[test]
    fn words_of_all_scripts_stay_as_they_are() {
        for text in [
            "Müller, 7 °C",
            "日本語",
            "می\u{200c}خواهم",
            "👩\u{200d}⚕\u{fe0f}",
            "e\u{301}",
            "\\u{1b}",
        ] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
            assert!(matches!(json(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
