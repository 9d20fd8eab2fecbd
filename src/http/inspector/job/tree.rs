//! A body as a tree that can be folded, or as plain text where it is no JSON.
//!
//! The invariant: a page holds so many nodes and levels and no more, whatever the body is; the
//! exact bytes are a link away.

use maud::{Markup, PreEscaped, html};

use super::{
    tokens::{Shape, Token, Tokens, said},
    veil::Veil,
};
use crate::domain::json;

/// Nodes of a tree: more than anyone reads, little enough for any browser.
const MAX_NODES: usize = 2_000;

/// Levels of a tree.
const MAX_DEPTH: usize = 64;

/// Levels that stand open at first.
const OPEN_DEPTH: usize = 3;

/// Characters that are shown of one string, and of a body that is no JSON.
const MAX_CHARACTERS: usize = 2_000;

/// Shows a body. `key` tells this tree from others of the page.
pub(super) fn body(bytes: &[u8], key: &str, veil: &Veil) -> Markup {
    match json::parse(bytes) {
        Ok(value) => {
            let mut tree = Tree { html: String::new(), nodes: 0, levels: Vec::new(), key, veil };
            tree.grow(Tokens::of(value));
            html! { div.json tabindex="0" { ul { (PreEscaped(tree.html)) } } }
        }
        Err(_) => text(bytes, veil),
    }
}

/// The beginning of a body that is no JSON.
fn text(bytes: &[u8], veil: &Veil) -> Markup {
    // Four bytes are the longest character.
    let beginning = &bytes[..bytes.len().min(MAX_CHARACTERS * 4)];
    let beginning_text = veil.over(&String::from_utf8_lossy(beginning));
    let (shown, is_cut) = cut(&beginning_text);
    html! {
        pre.raw tabindex="0" { (shown) }
        @if is_cut || beginning.len() < bytes.len() { p.cut { "This is its beginning." } }
    }
}

/// A text, cut to what is shown of it, and whether that is not all.
fn cut(text: &str) -> (&str, bool) {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

struct Tree<'a> {
    /// Grows from the root on; elements that are open are closed as levels end.
    html: String,
    nodes: usize,
    levels: Vec<Level>,
    key: &'a str,
    veil: &'a Veil,
}

struct Level {
    shape: Shape,
    /// The next element's place in an array.
    place: usize,
}

impl Tree<'_> {
    fn grow(&mut self, mut tokens: Tokens<'_>) {
        let mut name = None;
        while let Some(token) = tokens.next() {
            if self.nodes >= MAX_NODES && !matches!(token, Token::Close(_)) {
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

    fn open(&mut self, shape: Shape, label: Option<Markup>, tokens: &mut Tokens<'_>) {
        let (opening, closing) = (shape.opening(), shape.closing());
        if tokens.pass_over_if_empty() {
            self.leaf(label, html! { span.shape { (opening) (closing) } });
        } else if self.levels.len() >= MAX_DEPTH {
            tokens.pass_over();
            self.leaf(
                label,
                html! { span.cut { (opening) " … deeper than " (MAX_DEPTH) " levels " (closing) } },
            );
        } else {
            self.nodes += 1;
            let is_open = if self.levels.len() < OPEN_DEPTH { " open" } else { "" };
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

    /// A member's name, or an element's place.
    fn label(&mut self, name: Option<&str>) -> Option<Markup> {
        if let Some(name) = name {
            let name = self.veil.over(&said(name).unwrap_or_default());
            return Some(html! { span.member { (cut(&name).0) } });
        }
        let level = self.levels.last_mut().filter(|level| level.shape == Shape::Array)?;
        level.place += 1;
        Some(html! { span.place { (level.place - 1) } })
    }

    fn scalar(&self, written: &str) -> Markup {
        let Some(said) = said(written) else {
            return html! { span.scalar { (cut(written).0) } };
        };
        let said = self.veil.over(&said);
        let (shown, is_cut) = cut(&said);
        html! { span.string { (shown) } @if is_cut { span.cut { " … " (said.len()) " bytes" } } }
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
        let veil = Veil::of(&SigningKeys::first([1; 32]), JobId(uuid::Uuid::from_u128(7)));
        body(bytes, "k", &veil).into_string()
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
