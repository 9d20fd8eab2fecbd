//! Names of the files that outputs become.
//!
//! The invariants: a name is one plain segment, so nothing leads out of the folder; no two are the
//! same, on file systems that do not tell `A` from `a` either.

use std::collections::BTreeSet;

use crate::api;

/// Bytes of a name at most: file systems take 255, and a number may follow.
const MAX_NAME: usize = 120;
const MAX_EXTENSION: usize = 20;

/// Stands for a name of which nothing is left.
const NAMELESS: &str = "output";

/// A name for each output, in their order.
pub(super) fn file_names(outputs: &[api::Output]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let named = outputs.iter().map(|output| {
        let stem = safe(&output.name, MAX_NAME);
        let stem = if stem.is_empty() { NAMELESS.to_owned() } else { stem };
        let extension = output.extension.as_deref().map(|text| safe(text, MAX_EXTENSION));
        let extension = extension.filter(|text| !text.is_empty());
        let extension = extension.map(|text| format!(".{text}")).unwrap_or_default();
        let numbered = (2..).map(|number| format!("{stem}-{number}{extension}"));
        let mut names = std::iter::once(format!("{stem}{extension}")).chain(numbered);
        names.find(|name| taken.insert(name.to_lowercase())).expect("there are numbers enough")
    });
    named.collect()
}

/// Letters, digits, `-`, `_` and inner dots; everything else becomes `_`.
fn safe(text: &str, limit: usize) -> String {
    let is_safe =
        |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    let text: String =
        text.chars().map(|character| if is_safe(character) { character } else { '_' }).collect();
    let text = text.trim_matches('.');
    let end = (0..=limit.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or_default()].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::names::Names;

    fn names(outputs: &[(&str, Option<&str>)]) -> Vec<String> {
        let output = |(name, extension): &(&str, Option<&str>)| api::Output {
            name: (*name).to_owned(),
            kind: "meshes".into(),
            index: None,
            extension: extension.map(str::to_owned),
            structures: Names::default(),
            status: None,
            url: None,
            file: None,
        };
        file_names(&outputs.iter().map(output).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let hostile = [
            ("../../etc/passwd", Some(".stl")),
            ("/etc/passwd", None),
            ("..", Some("/../../x")),
            ("", Some("...")),
            ("a\0b\n\u{202e}c", Some(".s/t")),
        ];
        let found = names(&hostile);
        assert_eq!(
            found,
            ["_.._etc_passwd.stl", "_etc_passwd", "output._.._.._x", "output", "a_b__c.s_t"]
        );
        let long = names(&[(&"ä".repeat(500), Some(".stl"))]);
        assert_eq!(long, [format!("{}.stl", "ä".repeat(60))]);
    }

    #[test]
    fn no_two_outputs_share_a_name() {
        let found = names(&[
            ("meshes-0", Some(".stl")),
            ("Meshes-0", Some(".stl")),
            ("meshes-0-2", Some(".stl")),
            ("meshes/0", None),
            ("meshes_0", None),
        ]);
        assert_eq!(
            found,
            ["meshes-0.stl", "Meshes-0-2.stl", "meshes-0-2-2.stl", "meshes_0", "meshes_0-2"]
        );
    }
}
