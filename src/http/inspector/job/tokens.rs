//! A JSON tokenizer without recursion, which can stop anywhere.
//!
//! Used for the tree and the lines of a body that `json::parse` has accepted. Reading needs no
//! stack for nesting, and time only for the text that was read.

use crate::domain::json::Json;

/// An object or an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
}

impl Shape {
    pub(super) fn opening(self) -> &'static str {
        if self == Self::Object { "{" } else { "[" }
    }

    pub(super) fn closing(self) -> &'static str {
        if self == Self::Object { "}" } else { "]" }
    }
}

/// A piece of a JSON text, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Open(Shape),
    Close(Shape),
    /// A member's name, in quotes.
    Name(&'a str),
    /// A string in quotes, a number, `true`, `false` or `null`.
    Scalar(&'a str),
}

/// The tokens of a text, in order.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(text: Json<'a>) -> Self {
        Self { text: text.get(), at: 0 }
    }

    /// Skips the rest of an object or array that was just opened.
    pub(super) fn pass_over(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Open(_)) => depth += 1,
                Some(Token::Close(_)) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Whether the object or array that was just opened is empty; then its end is skipped too.
    pub(super) fn pass_over_if_empty(&mut self) -> bool {
        self.pass(|byte| byte.is_ascii_whitespace());
        let is_empty = matches!(self.peek(), Some(b'}' | b']'));
        self.at += usize::from(is_empty);
        is_empty
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn pass(&mut self, is_passed: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is_passed) {
            self.at += 1;
        }
    }

    /// Skips a string, starting at its opening quote.
    fn pass_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.pass(|byte| byte.is_ascii_whitespace() || byte == b',');
        let start = self.at;
        match self.peek()? {
            b'{' => {
                self.at += 1;
                Some(Token::Open(Shape::Object))
            }
            b'[' => {
                self.at += 1;
                Some(Token::Open(Shape::Array))
            }
            b'}' => {
                self.at += 1;
                Some(Token::Close(Shape::Object))
            }
            b']' => {
                self.at += 1;
                Some(Token::Close(Shape::Array))
            }
            b'"' => {
                self.pass_string();
                let written = self.text.get(start..self.at)?;
                self.pass(|byte| byte.is_ascii_whitespace());
                if self.peek() != Some(b':') {
                    return Some(Token::Scalar(written));
                }
                self.at += 1;
                Some(Token::Name(written))
            }
            _ => {
                self.pass(|byte| !byte.is_ascii_whitespace() && !b",]}".contains(&byte));
                Some(Token::Scalar(self.text.get(start..self.at)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        Tokens::of(json::parse(text.as_bytes()).expect("JSON")).collect()
    }

    #[test]
    fn a_text_is_its_tokens() {
        use Token::*;
        assert_eq!(
            tokens(r#"{"a\"" : [1.10,"x:{", true],"b":{}}"#),
            [
                Open(Shape::Object),
                Name(r#""a\"""#),
                Open(Shape::Array),
                Scalar("1.10"),
                Scalar(r#""x:{""#),
                Scalar("true"),
                Close(Shape::Array),
                Name(r#""b""#),
                Open(Shape::Object),
                Close(Shape::Object),
                Close(Shape::Object),
            ]
        );
        assert_eq!(tokens(" 1e999 "), [Scalar("1e999")]);
    }

    #[test]
    fn a_bottomless_text_is_passed_over_without_a_stack() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let value = json::parse(deep.as_bytes()).expect("JSON");
        let mut tokens = Tokens::of(value);
        assert_eq!(tokens.next(), Some(Token::Open(Shape::Array)));
        tokens.pass_over();
        assert_eq!(tokens.next(), None);
    }
}
