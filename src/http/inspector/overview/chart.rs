//! Column charts as SVG: stacked or single, with marker lines.
//!
//! Called by the overview's parts. Horizontal positions are in per cent and vertical ones in
//! pixels, so a chart fills its container and its text keeps its size. Everything it shows is
//! available as text too.

use std::fmt::Display;

use maud::{Markup, html};

/// Pixels from the top of the drawing to the highest grid line: room for a column's label, and for
/// the labels of marks.
const TOP: f64 = 18.0;
const TOP_WITH_MARKS: f64 = 40.0;

/// Pixels from the highest grid line to the lowest.
const PLOT: f64 = 160.0;

/// Pixels for the labels below.
const BELOW: f64 = 24.0;

/// The part of a column's space that it fills.
const FILLED: f64 = 0.76;

/// Approximate number of grid lines above the lowest.
const GRID_LINES: u64 = 4;

/// From here on a label is placed to the left of its mark, so that it stays in the drawing.
const TURNING_POINT: f64 = 0.6;

/// Vertical distance between the labels of two marks, in pixels.
const LABEL_LINE: f64 = 16.0;

/// How a part of a column is filled. Parts differ by lightness or pattern, not by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// A solid colour, by its class in the style sheet.
    Solid(&'static str),
    /// One of [`patterns`], by its name.
    Pattern(&'static str),
}

/// One column.
pub(super) struct Column {
    /// Its meaning, shown as a tooltip.
    pub told: String,
    /// Its parts, from the bottom up.
    pub parts: Vec<(Fill, u64)>,
    /// Whether its height is written above it.
    pub is_labelled: bool,
}

impl Column {
    fn height(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }
}

/// A label below the columns.
pub(super) struct Tick {
    /// Position as a fraction of the drawing's width.
    pub at: f64,
    pub label: String,
}

/// A vertical marker line.
pub(super) struct Mark {
    /// Position as a fraction of the drawing's width.
    pub at: f64,
    pub label: String,
}

/// A chart.
pub(super) struct Chart {
    /// The chart in one sentence, for readers who cannot see it.
    pub told: String,
    pub columns: Vec<Column>,
    pub ticks: Vec<Tick>,
    pub marks: Vec<Mark>,
}

impl Chart {
    pub(super) fn render(&self) -> Markup {
        let highest = self.columns.iter().map(Column::height).max().unwrap_or(0);
        let step = grid_step(highest);
        let top = highest.div_ceil(step).max(1) * step;
        let above = if self.marks.is_empty() { TOP } else { TOP_WITH_MARKS };
        let bottom = above + PLOT;
        let y = |count: u64| bottom - count as f64 / top as f64 * PLOT;
        html! {
            div.chart {
                svg width="100%" height=(bottom + BELOW) role="img" aria-label=(self.told) {
                    @for line in 0..=top / step {
                        @let at = pixels(y(line * step));
                        line.grid x1="0" x2="100%" y1=(at) y2=(at) {}
                        text.scale x="-8" y=(at) { (grouped(line * step)) }
                    }
                    @for (place, column) in self.columns.iter().enumerate() {
                        (self.column(place, column, &y))
                    }
                    @for tick in &self.ticks {
                        text.tick x=(percent(tick.at)) y=(bottom + LABEL_LINE) { (tick.label) }
                    }
                    @for (line, mark) in self.marks.iter().enumerate() { (mark_line(line, mark)) }
                }
            }
        }
    }

    fn column(&self, place: usize, column: &Column, y: &impl Fn(u64) -> f64) -> Markup {
        let width = 1.0 / self.columns.len() as f64;
        let left = place as f64 * width;
        let (x, filled) = (percent(left + width * (1.0 - FILLED) / 2.0), percent(width * FILLED));
        let piled = column.parts.iter().scan(0, |below, (fill, count)| {
            *below += count;
            Some((*fill, *below - count, *below))
        });
        html! {
            g.column {
                title { (column.told) }
                rect.whole x=(percent(left)) y=(y(0) - PLOT) width=(percent(width)) height=(PLOT) {}
                @for (fill, from, to) in piled.filter(|(_, from, to)| from < to) {
                    (filled_rect(fill, &x, &filled, (y(to), y(from))))
                }
                @if column.is_labelled && column.height() > 0 {
                    text.height x=(percent(left + width / 2.0)) y=(pixels(y(column.height()) - 5.0)) {
                        (grouped(column.height()))
                    }
                }
            }
        }
    }
}

/// A rectangle; `span` is its top and bottom in pixels.
fn filled_rect(fill: Fill, x: &str, width: &str, span: (f64, f64)) -> Markup {
    // A single job among many must stay visible.
    let height = pixels((span.1 - span.0).max(1.5));
    let y = pixels(span.0);
    html! {
        @match fill {
            Fill::Solid(class) => rect class=(class) x=(x) y=(y) width=(width) height=(height) {},
            Fill::Pattern(name) => {
                rect.patterned fill={ "url(#fill-" (name) ")" } x=(x) y=(y) width=(width) height=(height) {}
            }
        }
    }
}

fn mark_line(line: usize, mark: &Mark) -> Markup {
    let y = 12.0 + line as f64 * LABEL_LINE;
    let (side, anchor) = if mark.at < TURNING_POINT { (6, "start") } else { (-6, "end") };
    html! {
        g.mark-line {
            line x1=(percent(mark.at)) x2=(percent(mark.at)) y1=(y - 8.0) y2=(TOP_WITH_MARKS + PLOT) {}
            text x=(percent(mark.at)) y=(y) dx=(side) text-anchor=(anchor) { (mark.label) }
        }
    }
}

/// The patterns that charts and legends of a page use; include them once.
pub(super) fn patterns() -> Markup {
    html! {
        svg.definitions width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #fill-stripes width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.ground-warning width="6" height="6" {}
                    rect.line-warning width="3" height="6" {}
                }
                pattern #fill-dots width="5" height="5" patternUnits="userSpaceOnUse" {
                    rect.ground-calm width="5" height="5" {}
                    circle.line-calm cx="2.5" cy="2.5" r="1.2" {}
                }
                pattern #fill-rings width="7" height="7" patternUnits="userSpaceOnUse" {
                    rect.ground-warning width="7" height="7" {}
                    circle.ring-warning cx="3.5" cy="3.5" r="1.9" {}
                }
                pattern #fill-crosses width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.ground-bad width="6" height="6" {}
                    path.line-bad d="M3 0v6M0 3h6" {}
                }
                pattern #fill-lines width="4" height="4" patternUnits="userSpaceOnUse" {
                    rect.ground-quiet width="4" height="4" {}
                    rect.line-quiet width="4" height="1.3" {}
                }
            }
        }
    }
}

/// A small sample of a fill, for a legend.
pub(super) fn swatch(fill: Fill) -> Markup {
    html! {
        svg.swatch width="18" height="14" aria-hidden="true" {
            (filled_rect(fill, "0.5", "17", (0.5, 13.5)))
        }
    }
}

/// A number with thousands separators.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The distance between grid lines: 1, 2 or 5 followed by zeros.
fn grid_step(highest: u64) -> u64 {
    let least = highest.div_ceil(GRID_LINES).max(1);
    let mut power = 1;
    loop {
        for digit in [1, 2, 5] {
            if digit * power >= least {
                return digit * power;
            }
        }
        power *= 10;
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}

fn pixels(value: f64) -> impl Display {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn grid_lines_stand_at_round_numbers() {
        for (highest, step) in [(0, 1), (3, 1), (5, 2), (17, 5), (90, 50), (33_000, 10_000)] {
            assert_eq!(grid_step(highest), step, "{highest}");
        }
    }
}
