//! The limits of a job, a result, a list and a page, in one table.
//!
//! They apply where requests, the Engine's replies and results are read, where rows are read (a
//! database may be older than a bound), and where pages are rendered. In a request, exceeding a
//! bound is a violation; in a reply or a result, the entry stays unmatched with a warning, and the
//! bytes are kept unchanged.

use super::{
    json::{Json, Name},
    names::Names,
};

/// Inputs of a job. A case has a few scans and photographs.
pub const MAX_INPUTS: usize = 100;

/// Outputs of a job, including those that match no request. A job has tens of them.
pub const MAX_OUTPUTS: usize = 1_000;

/// Structures of one output: a full set of teeth has some fifty.
pub const MAX_STRUCTURES: usize = 200;

/// Characters of a name, kind, extension, structure, status, id, `reference`, `cloudPackage` and
/// `endUserId`: labels, not documents.
pub const MAX_NAME_CHARS: usize = 256;

/// Bytes of a link: signed ones have 500 to 2,000.
pub const MAX_LINK_BYTES: usize = 4 * 1024;

/// Bytes of text in all outputs of one result together: enough for a thousand signed links.
pub const MAX_OUTPUT_TEXT_BYTES: usize = 2 * 1024 * 1024;

/// Warnings of a job, and characters of each. The texts are our own, each at most once.
pub const MAX_WARNINGS: usize = 20;
pub const MAX_WARNING_CHARS: usize = 500;

/// Violations that are listed for one body: more help nobody.
pub const MAX_VIOLATIONS: usize = 20;

/// Bytes of a violation's pointer, and of its description.
pub const MAX_POINTER_BYTES: usize = 1024;

/// Bytes of the Engine's reply that are kept: the links of 100 inputs, twice over.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// Rows of a page, by default and at most.
pub const DEFAULT_LIMIT: u32 = 50;
pub const MAX_LIMIT: u32 = 200;

/// Bytes of the rows of a page. A page ends before the row that would exceed it, but has at least
/// one row.
pub const MAX_PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes of the stored inputs or outputs of one job. Rows beyond it were written before these
/// bounds existed and are not read.
pub const MAX_ROWS_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of an event's data. Rows beyond it were written before these bounds existed.
pub const MAX_EVENT_BYTES: usize = 16 * 1024;

/// Bytes of the names that one event lists.
pub const MAX_EVENT_NAMES_BYTES: usize = 2 * 1024;

/// Attempts of one relay that are shown, the latest ones. Each holds up to 4 KiB of an answer.
pub const MAX_ATTEMPTS: u32 = 100;

/// Nodes and levels of a body that a page shows as a tree: more than anyone reads, and few enough
/// for any browser.
pub const MAX_TREE_NODES: usize = 2_000;
pub const MAX_TREE_DEPTH: usize = 64;

/// Bytes of HTML of such a tree.
pub const MAX_TREE_BYTES: usize = 512 * 1024;

/// Levels of a tree that are open at first.
pub const OPEN_TREE_DEPTH: usize = 3;

/// Characters that a page shows of one string, and of a body that is not JSON.
pub const MAX_SHOWN_CHARS: usize = 2_000;

/// Lines of a body that a page compares with another, and characters of each.
pub const MAX_COMPARED_LINES: usize = 2_000;
pub const MAX_LINE_CHARS: usize = 500;

/// Bytes of those lines together.
pub const MAX_COMPARED_BYTES: usize = 256 * 1024;

/// Rows of each kind on a job's page: files, events of its timeline, deliveries, relays, attempts.
pub const MAX_SHOWN_FILES: usize = 200;
pub const MAX_SHOWN_EVENTS: u32 = 200;
pub const MAX_SHOWN_DELIVERIES: u32 = 100;
pub const MAX_SHOWN_RELAYS: u32 = 20;
pub const MAX_SHOWN_ATTEMPTS: usize = 20;

/// Characters of an attempt's answer, a header's value and an output's structures on a page.
pub const MAX_CELL_CHARS: usize = 500;

/// Names of one kind in a row of the list of jobs.
pub const MAX_NAMES_IN_A_ROW: usize = 8;

/// An exceeded bound; its description continues "more than".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Inputs,
    Outputs,
    Structures,
    NameChars,
    LinkBytes,
    TextBytes,
}

impl Bound {
    /// For people: `1000 outputs`.
    pub fn describe(self) -> String {
        match self {
            Self::Inputs => format!("{MAX_INPUTS} inputs"),
            Self::Outputs => format!("{MAX_OUTPUTS} outputs"),
            Self::Structures => format!("{MAX_STRUCTURES} structures"),
            Self::NameChars => format!("{MAX_NAME_CHARS} characters in a name"),
            Self::LinkBytes => format!("{MAX_LINK_BYTES} bytes in a link"),
            Self::TextBytes => format!("{MAX_OUTPUT_TEXT_BYTES} bytes in all outputs together"),
        }
    }
}

/// Whether a text fits as a name.
pub fn is_name(text: &str) -> bool {
    // Counting is only needed for texts that may be too long; most are far shorter.
    text.len() <= MAX_NAME_CHARS
        || (text.len() <= MAX_NAME_CHARS * 4 && text.chars().count() <= MAX_NAME_CHARS)
}

/// Reads a text as a name; `None` if the value is not a text.
///
/// # Errors
/// [`Bound::NameChars`] if it is too long for one.
pub fn name(value: Json<'_>) -> Result<Option<String>, Bound> {
    if value.is_text_beyond(MAX_NAME_CHARS * 4) {
        return Err(Bound::NameChars);
    }
    match value.text() {
        Some(text) if !is_name(&text) => Err(Bound::NameChars),
        text => Ok(text),
    }
}

/// Reads a text as a link; `None` if the value is not a text.
///
/// # Errors
/// [`Bound::LinkBytes`] if it is too long for one.
pub fn link(value: Json<'_>) -> Result<Option<String>, Bound> {
    if value.is_text_beyond(MAX_LINK_BYTES) {
        return Err(Bound::LinkBytes);
    }
    match value.text() {
        Some(text) if text.len() > MAX_LINK_BYTES => Err(Bound::LinkBytes),
        text => Ok(text),
    }
}

/// Reads the texts of an array as names; other values are skipped.
///
/// # Errors
/// The bound that is exceeded.
pub fn structures(value: Json<'_>) -> Result<Option<Names>, Bound> {
    let Some(elements) = value.elements() else { return Ok(None) };
    let mut structures = Vec::new();
    for element in elements {
        if let Some(structure) = name(element)? {
            if structures.len() == MAX_STRUCTURES {
                return Err(Bound::Structures);
            }
            structures.push(structure);
        }
    }
    Ok(Some(structures.into_iter().collect()))
}

/// The text of a member's name.
///
/// # Errors
/// [`Bound::NameChars`] if it is too long for a name.
pub fn member_name(written: Name<'_>) -> Result<String, Bound> {
    if written.is_beyond(MAX_NAME_CHARS * 4) {
        return Err(Bound::NameChars);
    }
    let text = written.text();
    if is_name(&text) { Ok(text.into_owned()) } else { Err(Bound::NameChars) }
}

/// The first `most_chars` characters of a text.
pub fn beginning(text: &str, most_chars: usize) -> &str {
    match text.char_indices().nth(most_chars) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// How many of these sizes, from the first on, fit a page: at least one, if there is any.
pub fn fitting(sizes: impl IntoIterator<Item = u64>) -> usize {
    let mut bytes: u64 = 0;
    let fits = |size: &u64| {
        bytes = bytes.saturating_add(*size);
        bytes <= MAX_PAGE_BYTES
    };
    let mut sizes = sizes.into_iter().peekable();
    let is_any = sizes.peek().is_some();
    sizes.take_while(fits).count().max(usize::from(is_any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_in_characters() {
        for letter in ["x", "ä", "…", "🦷"] {
            assert!(is_name(&letter.repeat(MAX_NAME_CHARS)), "{letter}");
            assert!(!is_name(&letter.repeat(MAX_NAME_CHARS + 1)), "{letter}");
            assert_eq!(beginning(&letter.repeat(9), 3), letter.repeat(3));
        }
        assert_eq!(beginning("ab", 3), "ab");
    }

    #[test]
    fn a_page_makes_progress_and_does_not_grow() {
        assert_eq!(fitting([]), 0);
        assert_eq!(fitting([u64::MAX, 1]), 1);
        assert_eq!(fitting([MAX_PAGE_BYTES - 1, 1, 1]), 2);
        assert_eq!(fitting([1, u64::MAX, 1]), 1);
    }
}
