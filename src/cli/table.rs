//! Tables for people: aligned, no wider than the terminal, safe to show.
//!
//! Untrusted text cannot control the terminal; into a pipe or a file everything is written in full.

use std::io;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::screen::{Colour, Piece, Screen};
use crate::printable;

const GAP: &str = "  ";

/// Narrowest width of a cut cell: a few characters and the ellipsis.
const NARROWEST: usize = 8;

/// How a column behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shown whole: an id, a status, a time.
    Whole,
    /// Aligned to the right.
    Number,
    /// Cut where the terminal is too narrow.
    Cut,
}

/// One cell: its text, and its colour on a terminal.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A status in the colour of what it means.
    pub(super) fn status(status: &str) -> Self {
        let colour = match status {
            "succeeded" | "delivered" | "stored" | "Available" => Some(Colour::Green),
            "failed" | "rejected" | "dead" | "conflict" | "malformed" | "Failed" => {
                Some(Colour::Red)
            }
            "partial" | "unsent" | "unconfirmed" | "paused" | "unrecognised" => {
                Some(Colour::Yellow)
            }
            _ => None,
        };
        Self { colour, ..status.to_owned().into() }
    }
}

impl<T: ToString> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(|| "-".to_string(), |value| value.to_string()).into()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        // Escaped here, since column widths depend on what is shown.
        Self { text: printable::line(&text).into_owned(), colour: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table that is printed row by row; the first rows fix the column widths.
pub(super) struct Table {
    columns: Vec<(&'static str, Kind)>,
    widths: Option<Vec<usize>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Kind)]) -> Self {
        Self { columns: columns.to_vec(), widths: None }
    }

    /// Prints rows, with the headings above the first ones.
    pub(super) fn print(&mut self, screen: &mut Screen, rows: &[Vec<Cell>]) -> io::Result<()> {
        if self.widths.is_none() {
            self.widths = Some(self.layout(rows, screen.width()));
            let headings = self.columns.iter().map(|(heading, _)| Cell::from(*heading));
            self.row(screen, &headings.collect::<Vec<_>>())?;
        }
        rows.iter().try_for_each(|row| self.row(screen, row))
    }

    /// Each column's width; the last columns are left out if they do not fit.
    fn layout(&self, rows: &[Vec<Cell>], limit: Option<usize>) -> Vec<usize> {
        let natural = |(index, (heading, _)): (usize, &(&'static str, Kind))| {
            let cells = rows.iter().map(|row| row[index].text.width());
            cells.chain([heading.width()]).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(natural).collect();
        let Some(limit) = limit else { return widths };
        let total = |widths: &[usize]| {
            widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
        };
        while total(&widths) > limit {
            let excess = total(&widths) - limit;
            let cut = (0..widths.len())
                .filter(|&index| self.columns[index].1 == Kind::Cut && widths[index] > NARROWEST);
            match cut.max_by_key(|&index| widths[index]) {
                Some(index) => {
                    widths[index] = (widths[index] - excess.min(widths[index])).max(NARROWEST)
                }
                None if widths.len() > 1 => _ = widths.pop(),
                None => break,
            }
        }
        widths
    }

    fn row(&self, screen: &mut Screen, row: &[Cell]) -> io::Result<()> {
        let widths = self.widths.as_deref().unwrap_or_default();
        let mut cells = Vec::new();
        for (index, (cell, &width)) in row.iter().zip(widths).enumerate() {
            let kind = self.columns[index].1;
            let text = match kind {
                Kind::Cut if screen.width().is_some() => cut(&cell.text, width),
                _ => cell.text.clone(),
            };
            let padding = " ".repeat(width.saturating_sub(text.width()));
            let gap = if index > 0 { GAP } else { "" };
            let (before, after) = match kind {
                Kind::Number => (format!("{gap}{padding}"), String::new()),
                _ => (gap.to_owned(), padding),
            };
            cells.push((before, text, cell.colour, after));
        }
        let pieces = cells.iter().flat_map(|(before, text, colour, after)| {
            [Piece::plain(before), Piece { text, colour: *colour }, Piece::plain(after)]
        });
        screen.pieces(&pieces.collect::<Vec<_>>())
    }
}

/// Prints names and values below each other, without those that have no value.
pub(super) fn facts(screen: &mut Screen, facts: &[(&str, Option<Cell>)]) -> io::Result<()> {
    let there = facts.iter().filter_map(|(name, cell)| Some((name, cell.as_ref()?)));
    let width = there.clone().map(|(name, _)| name.width()).max().unwrap_or_default();
    for (name, cell) in there {
        let name = format!("{name:width$}{GAP}");
        let value = Piece { text: &cell.text, colour: cell.colour };
        screen.pieces(&[Piece::plain(&name), value])?;
    }
    Ok(())
}

/// A link without its query, which is a credential.
pub(super) fn link(url: &str) -> String {
    match url.split_once(['?', '#']) {
        Some((address, _)) => format!("{address}?…"),
        None => url.to_owned(),
    }
}

/// A time to the second, for a column whose heading says UTC.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 0);
    for character in text.chars() {
        used += character.width().unwrap_or_default();
        if used + 1 > width {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(limit: usize, cells: &[&str]) -> Vec<usize> {
        let table = Table::new(&[("ID", Kind::Whole), ("NAME", Kind::Cut), ("N", Kind::Number)]);
        let row = cells.iter().map(|text| Cell::from(*text)).collect();
        table.layout(&[row], Some(limit))
    }

    #[test]
    fn a_table_fits_the_terminal_by_cutting_what_may_be_cut() {
        let cells = ["1234567890", "a name of some length", "7"];
        assert_eq!(widths(80, &cells), [10, 21, 1]);
        assert_eq!(widths(30, &cells), [10, 15, 1]);
        assert_eq!(widths(22, &cells), [10, 8], "the last column is left out");
        assert_eq!(widths(5, &cells), [10], "an id is never cut");
    }

    #[test]
    fn a_cell_is_cut_by_columns_not_by_bytes() {
        assert_eq!(cut("Müller", 6), "Müller");
        assert_eq!(cut("Müller", 4), "Mül…");
        assert_eq!(cut("日本語の名前", 7), "日本語…");
    }

    #[test]
    fn a_link_is_shown_without_its_query() {
        assert_eq!(link("https://s.example/a.stl?sig=x"), "https://s.example/a.stl?…");
        assert_eq!(link("https://s.example/a.stl"), "https://s.example/a.stl");
    }
}
