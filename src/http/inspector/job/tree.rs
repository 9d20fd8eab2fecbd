//! A body as a foldable tree, or as plain text if it is not JSON.
//!
//! Trees are bounded in nodes, levels and bytes for any body; the page links to the exact bytes.

use maud::{Markup, PreEscaped, html};

use super::{
    redactor::Redactor,
    tokens::{Shape, Token, Tokens},
};
use crate::domain::{
    bounds::{
        MAX_SHOWN_CHARS, MAX_TREE_BYTES, MAX_TREE_DEPTH, MAX_TREE_NODES, OPEN_TREE_DEPTH, beginning,
    },
    json,
};

/// Shows a body. `key` distinguishes this tree from others on the page.
pub(super) fn body(bytes: &[u8], key: &str, redactor: &Redactor) -> Markup {
    match json::parse(bytes) {
        Ok(value) => {
            let mut tree =
                Tree { html: String::new(), nodes: 0, levels: Vec::new(), key, redactor };
            tree.grow(Tokens::of(value));
            html! { div.json tabindex="0" { ul { (PreEscaped(tree.html)) } } }
        }
        Err(_) => text(bytes, redactor),
    }
}

/// The beginning of a body that is not JSON.
fn text(bytes: &[u8], redactor: &Redactor) -> Markup {
    let (shown, is_all) = redactor.redact_bytes(bytes, MAX_SHOWN_CHARS);
    html! {
        pre.raw tabindex="0" { (shown) }
        @if !is_all { p.cut { "This is its beginning." } }
    }
}

struct Tree<'a> {
    /// The HTML so far; open elements are closed as their levels end.
    html: String,
    nodes: usize,
    levels: Vec<Level>,
    key: &'a str,
    redactor: &'a Redactor,
}

struct Level {
    shape: Shape,
    /// Index of the next element of an array.
    place: usize,
}

impl Tree<'_> {
    fn grow(&mut self, mut tokens: Tokens<'_>) {
        let mut name = None;
        while let Some(token) = tokens.next() {
            if self.is_full() && !matches!(token, Token::Close(_)) {
                self.leaf(None, html! { span.cut { "… and more: see the exact bytes" } });
                break;
            }
            match token {
                Token::Name(written) => name = Some(written),
                Token::Scalar(written) => {
                    let label = self.label(name.take());
                    let value = self.scalar(written);
                    self.leaf(label, value);
                }
                Token::Open(shape) => {
                    let label = self.label(name.take());
                    self.open(shape, label, &mut tokens);
                }
                Token::Close(_) => self.close(),
            }
        }
        while !self.levels.is_empty() {
            self.close();
        }
    }

    fn is_full(&self) -> bool {
        self.nodes >= MAX_TREE_NODES || self.html.len() >= MAX_TREE_BYTES
    }

    fn open(&mut self, shape: Shape, label: Option<Markup>, tokens: &mut Tokens<'_>) {
        let (opening, closing) = (shape.opening(), shape.closing());
        if tokens.pass_over_if_empty() {
            self.leaf(label, html! { span.shape { (opening) (closing) } });
        } else if self.levels.len() >= MAX_TREE_DEPTH {
            tokens.pass_over();
            self.leaf(
                label,
                html! { span.cut { (opening) " … deeper than " (MAX_TREE_DEPTH) " levels " (closing) } },
            );
        } else {
            self.nodes += 1;
            let is_open = if self.levels.len() < OPEN_TREE_DEPTH { " open" } else { "" };
            self.push(&format!("<li><details{is_open} data-key=\""));
            self.push(&html! { (self.key) "-" (self.nodes) }.into_string());
            self.push("\">");
            self.push(&html! { summary { (named(label)) span.shape { (opening) span.folded { "…" (closing) } } } }.into_string());
            self.push("<ul>");
            self.levels.push(Level { shape, place: 0 });
        }
    }

    fn close(&mut self) {
        if self.levels.pop().is_some() {
            self.push("</ul></details></li>");
        }
    }

    fn leaf(&mut self, label: Option<Markup>, value: Markup) {
        self.nodes += 1;
        self.push(&html! { li { (named(label)) (value) } }.into_string());
    }

    /// A member's name, or an element's index.
    fn label(&mut self, name: Option<&str>) -> Option<Markup> {
        if let Some(name) = name {
            let (name, _) = self.redactor.redact_string(name, MAX_SHOWN_CHARS).unwrap_or_default();
            return Some(html! { span.member { (name) } });
        }
        let level = self.levels.last_mut().filter(|level| level.shape == Shape::Array)?;
        level.place += 1;
        Some(html! { span.place { (level.place - 1) } })
    }

    fn scalar(&self, written: &str) -> Markup {
        let Some((shown, is_all)) = self.redactor.redact_string(written, MAX_SHOWN_CHARS) else {
            return html! { span.scalar { (beginning(written, MAX_SHOWN_CHARS)) } };
        };
        html! {
            span.string { (shown) }
            @if !is_all { span.cut { " … " (written.len() - 2) " bytes" } }
        }
    }

    fn push(&mut self, html: &str) {
        self.html.push_str(html);
    }
}

fn named(label: Option<Markup>) -> Markup {
    html! { @if let Some(label) = label { (label) " " } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ids::JobId, signing_keys::SigningKeys};

    fn shown(bytes: &[u8]) -> String {
        let redactor = Redactor::of(&SigningKeys::first([1; 32]), JobId(uuid::Uuid::from_u128(7)));
        body(bytes, "k", &redactor).into_string()
    }

    #[test]
    fn what_came_from_outside_is_text() {
        let html = shown(br#"{"<img src=x>":"<script>alert(1)</script>","a":["\"><b>"]}"#);
        assert!(
            !html.contains("<script") && !html.contains("<img") && !html.contains("<b>"),
            "{html}"
        );
        assert!(html.contains("&lt;script&gt;"));
        assert!(shown(b"<script>").contains("&lt;script&gt;"));
    }

    #[test]
    fn a_tree_is_bounded_and_its_elements_are_closed() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let wide = format!("[{}1]", "{\"a\":[1]},".repeat(1_000_000));
        for bytes in [deep, wide, "{\"a\":{},\"b\":[[],1]}".into(), "\"x\"".into()] {
            let html = shown(bytes.as_bytes());
            assert!(html.len() < 1_000_000, "{}", html.len());
            for tag in ["ul", "li", "details"] {
                let opened = html.matches(&format!("<{tag}")).count();
                assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
            }
        }
    }
}
