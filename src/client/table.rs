//! Tables: sanitised cells under headings, as wide as the terminal at most.

use anstyle::{AnsiColor, Style as Ansi};
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::sanitize::escape;

/// Cells between which a table has a gap of two.
const GAP: u16 = 2;

/// One column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
    /// As wide as there is room for; a text that is wider ends with an ellipsis.
    Fill,
}

/// The few colours that states have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
    Grey,
}

impl Colour {
    fn style(self) -> Ansi {
        match self {
            Self::Green => AnsiColor::Green,
            Self::Red => AnsiColor::Red,
            Self::Yellow => AnsiColor::Yellow,
            Self::Grey => AnsiColor::BrightBlack,
        }
        .on_default()
    }
}

/// How a table is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colours: bool,
    /// The width of the terminal; `None` in files and pipes.
    pub(super) width: Option<usize>,
}

/// Rows of cells under headings. A row is one line, whatever is in it.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Of each row: a cell, and its colour.
    colours: Vec<Option<(usize, Colour)>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            colours: Vec::new(),
        }
    }

    /// Adds a row of one cell a column; one of them may have a colour.
    pub(super) fn row(&mut self, cells: &[&str], colour: Option<(usize, Colour)>) {
        self.rows
            .push(cells.iter().map(|cell| escape(cell).into_owned()).collect());
        self.colours.push(colour);
    }

    /// The lines, each with its end.
    pub(super) fn render(&self, style: Style) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING).set_truncation_indicator("…");
        let heading = self.columns.iter().map(|(name, _)| *name);
        table.set_header(Row::from(heading));
        for cells in &self.rows {
            let mut row = Row::from(cells.iter().map(Cell::new));
            row.max_height(1);
            table.add_row(row);
        }
        match style.width {
            None => table.set_content_arrangement(ContentArrangement::Disabled),
            Some(width) => table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(u16::try_from(width).unwrap_or(u16::MAX)),
        };
        let last = self.columns.len().saturating_sub(1);
        for (at, (_, align)) in self.columns.iter().enumerate() {
            let column = table.column_mut(at).expect("the heading made it");
            column.set_padding((0, if at < last { GAP } else { 0 }));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if *align != Align::Fill {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut out = String::new();
        for (at, line) in table.lines().enumerate() {
            let line = cut(&line, style.width.unwrap_or(usize::MAX)).trim_end_matches(' ');
            let row = at.checked_sub(1);
            let colour = row.and_then(|row| Some((row, (*self.colours.get(row)?)?)));
            match colour.filter(|_| style.colours) {
                Some((row, (cell, colour))) => {
                    let word = self.rows[row].get(cell).map_or("", String::as_str);
                    let style = colour.style();
                    out.push_str(&line.replacen(word, &format!("{style}{word}{style:#}"), 1));
                }
                None => out.push_str(line),
            }
            out.push('\n');
        }
        out
    }
}

/// As much of the text as fits, in whole characters as people count them.
fn cut(text: &str, width: usize) -> &str {
    if text.width() <= width {
        return text;
    }
    let mut end = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        let next = at + grapheme.len();
        if text[..next].width() > width {
            break;
        }
        end = next;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            cells in proptest::collection::vec(".{0,12}", 3), width in 0_usize..40,
        ) {
            let mut table = Table::new(&[("A", Align::Left), ("BB", Align::Right), ("C", Align::Fill)]);
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            table.row(&cells, Some((0, Colour::Red)));
            let text = table.render(Style { colours: false, width: Some(width) });
            prop_assert_eq!(text.lines().count(), 2, "{:?}", text);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("ID", Align::Left), ("N", Align::Right), ("X", Align::Fill)]);
        table.row(&["abc", "1", "y"], Some((1, Colour::Green)));
        table.row(&["漢", "22", ""], None);
        assert_eq!(
            table.render(Style::default()),
            "ID    N  X\nabc   1  y\n漢   22\n"
        );
        let colours = Style {
            colours: true,
            width: None,
        };
        assert!(table.render(colours).contains("\x1b[32m1\x1b[0m"));
    }

    #[test]
    fn what_does_not_fit_ends_with_an_ellipsis_and_emoji_count_as_they_are_shown() {
        let mut table = Table::new(&[("ID", Align::Left), ("NAME", Align::Fill)]);
        table.row(&["abc", &"👩🏽🇩🇪".repeat(40)], None);
        table.row(&["abc", "short"], None);
        let style = Style {
            colours: false,
            width: Some(20),
        };
        let text = table.render(style);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].ends_with('…') && lines[1].width() <= 20, "{text}");
        assert_eq!(lines[2], "abc  short");
    }
}
