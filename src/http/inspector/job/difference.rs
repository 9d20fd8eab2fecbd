//! The lines in which two bodies differ, side by side.
//!
//! The input of the comparison is bounded, so it is fast for any body.

use maud::{Markup, html};
use similar::{Algorithm, DiffOp, capture_diff_slices, group_diff_ops};

use super::{
    redactor::Redactor,
    tokens::{Token, Tokens},
};
use crate::domain::{
    bounds::{MAX_COMPARED_BYTES, MAX_COMPARED_LINES, MAX_LINE_CHARS, MAX_TREE_DEPTH, beginning},
    json,
};

/// Lines shown around a difference.
const AROUND: usize = 3;

/// Shows where two bodies differ.
pub(super) fn between(left: &[u8], right: &[u8], redactor: &Redactor) -> Markup {
    let ((left, is_left_cut), (right, is_right_cut)) =
        (lines(left, redactor), lines(right, redactor));
    let is_cut = is_left_cut || is_right_cut;
    let operations = capture_diff_slices(Algorithm::Myers, &left, &right);
    let groups = group_diff_ops(operations, AROUND);
    html! {
        @if groups.is_empty() {
            p.muted { "They say the same; only white space or the queries of links differ." }
        } @else {
            div.scroll.differences tabindex="0" {
                table {
                    caption.visually-hidden { "Lines in which the two differ" }
                    colgroup { col.number; col; col.number; col; }
                    thead { tr { th scope="col" colspan="2" { "Result" } th scope="col" colspan="2" { "Conflicting delivery" } } }
                    @for group in &groups {
                        tbody {
                            @for operation in group { (rows(operation, &left, &right)) }
                        }
                    }
                }
            }
        }
        @if is_cut {
            p.cut { "Their beginnings are compared, up to " (MAX_COMPARED_LINES) " lines." }
        }
    }
}

fn rows(operation: &DiffOp, left: &[String], right: &[String]) -> Markup {
    let (old, new) = (operation.old_range(), operation.new_range());
    let is_equal = matches!(operation, DiffOp::Equal { .. });
    html! {
        @for row in 0..old.len().max(new.len()) {
            tr {
                (cell(old.clone().nth(row), left, "del", is_equal))
                (cell(new.clone().nth(row), right, "ins", is_equal))
            }
        }
    }
}

fn cell(at: Option<usize>, lines: &[String], change: &str, is_equal: bool) -> Markup {
    html! {
        @match at.and_then(|at| Some((at, lines.get(at)?))) {
            None => { td.number {} td.line {} },
            Some((at, line)) => {
                td.number { (at + 1) }
                td class={ "line " (if is_equal { "" } else { change }) } {
                    @if is_equal { (line) }
                    @else if change == "del" { del { (line) } }
                    @else { ins { (line) } }
                }
            }
        }
    }
}

/// A body as lines, one for each name, value and bracket, and whether it was cut.
fn lines(bytes: &[u8], redactor: &Redactor) -> (Vec<String>, bool) {
    let Ok(value) = json::parse(bytes) else {
        let (text, is_all) = redactor.redact_bytes(bytes, MAX_COMPARED_BYTES);
        let lines: Vec<String> = text.lines().take(MAX_COMPARED_LINES).map(shortened).collect();
        let is_cut = !is_all || lines.len() == MAX_COMPARED_LINES;
        return (lines, is_cut);
    };
    let mut lines = Vec::new();
    let mut depth: usize = 0;
    let mut bytes: usize = 0;
    let mut name = String::new();
    let mut tokens = Tokens::of(value);
    while let Some(token) = tokens.next() {
        let words = match token {
            Token::Name(written) => {
                let (said, _) = redactor.redact_string(written, MAX_LINE_CHARS).unwrap_or_default();
                name = format!("{said}: ");
                continue;
            }
            Token::Scalar(written) => match redactor.redact_string(written, MAX_LINE_CHARS) {
                Some((said, _)) => format!("{said:?}"),
                None => beginning(written, MAX_LINE_CHARS).to_owned(),
            },
            Token::Open(shape) if depth >= MAX_TREE_DEPTH => {
                tokens.pass_over();
                format!("{}…{}", shape.opening(), shape.closing())
            }
            Token::Open(shape) => shape.opening().to_owned(),
            Token::Close(shape) => shape.closing().to_owned(),
        };
        if matches!(token, Token::Close(_)) {
            depth = depth.saturating_sub(1);
        }
        let line = shortened(&format!("{:1$}{name}{words}", "", depth * 2));
        bytes += line.len();
        lines.push(line);
        name.clear();
        if matches!(token, Token::Open(_)) && !words.ends_with(['}', ']']) {
            depth += 1;
        }
        if lines.len() >= MAX_COMPARED_LINES || bytes >= MAX_COMPARED_BYTES {
            return (lines, true);
        }
    }
    (lines, false)
}

fn shortened(line: &str) -> String {
    let kept = beginning(line, MAX_LINE_CHARS);
    if kept.len() == line.len() { line.to_owned() } else { format!("{kept}…") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ids::JobId, signing_keys::SigningKeys};

    #[test]
    fn lines_that_differ_stand_side_by_side() {
        let redactor = Redactor::of(&SigningKeys::first([1; 32]), JobId(uuid::Uuid::from_u128(7)));
        let left = br#"{"success":true,"url":"https://s/a?sig=1","n":[1,{"x":[]}]}"#;
        let right = br#"{"success":false,"url":"https://s/a?sig=2","n":[1,{"x":[]}]}"#;
        assert_eq!(
            lines(left, &redactor).0,
            [
                "{",
                "  success: true",
                "  url: \"https://s/a?…\"",
                "  n: [",
                "    1",
                "    {",
                "      x: [",
                "      ]",
                "    }",
                "  ]",
                "}"
            ]
        );
        let html = between(left, right, &redactor).into_string();
        assert!(html.contains("<del>  success: true</del>"), "{html}");
        assert!(html.contains("<ins>  success: false</ins>"), "{html}");
        assert_eq!(html.matches("<del>").count(), 1, "the same link signed again is no difference");
    }
}
