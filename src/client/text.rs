//! Text for terminals: foreign bytes made harmless, tables, times and sizes.
//!
//! Names, commands and messages come from whoever made a job. An escape sequence in one of them must not
//! reach the terminal of whoever lists jobs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text with everything a terminal would act upon written as `\xNN` or `\u{NNNN}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            active if is_active(active) => match u32::from(active) {
                code @ 0..=0xff => write!(shown, "\\x{code:02x}"),
                code => write!(shown, "\\u{{{code:x}}}"),
            }
            .expect("a string takes everything"),
            plain => shown.push(plain),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, and those that reorder or hide what is around them.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// One column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows of cells under headings. Cells are made harmless as they come in.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    colour: Option<Colour>,
}

/// The few colours that states have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Green,
    Red,
    Yellow,
    Grey,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Green => "\x1b[32m",
            Self::Red => "\x1b[31m",
            Self::Yellow => "\x1b[33m",
            Self::Grey => "\x1b[90m",
        }
    }
}

const PLAIN: &str = "\x1b[0m";

/// How a table is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub colours: bool,
    /// Lines are cut at this width; `None` where nobody looks at them.
    pub width: Option<usize>,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of one cell a column.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = (&'a str, Option<Colour>)>) {
        let cells = cells.into_iter().map(|(text, colour)| Cell {
            text: visible(text).into_owned(),
            colour,
        });
        self.rows.push(cells.collect());
    }

    /// The lines, each with its end.
    pub fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                let widest = cells.map(|cell| cell.text.width()).max();
                self.columns[at].0.width().max(widest.unwrap_or(0))
            })
            .collect();
        let mut out = String::new();
        let heading = self.columns.iter().map(|(name, _)| (*name, None));
        self.line(&mut out, heading, &widths, style);
        for row in &self.rows {
            let cells = row.iter().map(|cell| (cell.text.as_str(), cell.colour));
            self.line(&mut out, cells, &widths, style);
        }
        out
    }

    fn line<'a>(
        &self,
        out: &mut String,
        cells: impl Iterator<Item = (&'a str, Option<Colour>)>,
        widths: &[usize],
        style: Style,
    ) {
        let mut left = style.width.unwrap_or(usize::MAX);
        let last = self.columns.len().saturating_sub(1);
        for (at, (text, colour)) in cells.enumerate() {
            if at > 0 {
                let gap = left.min(2);
                out.push_str(&"  "[..gap]);
                left -= gap;
            }
            let text = cut(text, left);
            let padding = widths[at].min(left).saturating_sub(text.width());
            let colour = colour.filter(|_| style.colours && !text.is_empty());
            let shown = match colour {
                Some(colour) => format!("{}{text}{PLAIN}", colour.code()),
                None => text.to_owned(),
            };
            match self.columns[at].1 {
                Align::Right => {
                    out.push_str(&" ".repeat(padding));
                    out.push_str(&shown);
                }
                Align::Left => {
                    out.push_str(&shown);
                    if at < last {
                        out.push_str(&" ".repeat(padding));
                    }
                }
            }
            left -= text.width() + padding.min(left - text.width());
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// As much of the text as fits.
fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += character.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// A span in its two largest units, such as `3m12s` or `2d4h`; below ten seconds with a decimal.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{}.{}s", seconds, span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A size with three digits at most, in powers of 1024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    for power in 0..UNITS.len() {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        unit = power;
    }
    if whole < 10 {
        format!("{whole}.{}{}", rest * 10 / 1024, UNITS[unit])
    } else {
        format!("{whole}{}", UNITS[unit])
    }
}

/// Arguments as one would type them to a shell.
pub fn command_line<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<Cow<'_, str>> = arguments.into_iter().map(quote).collect();
    quoted.join(" ")
}

fn quote(argument: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-_./=:,+@%^".contains(&byte) || !byte.is_ascii()
    };
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        Cow::Borrowed(argument)
    } else {
        Cow::Owned(format!("'{}'", argument.replace('\'', "'\\''")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_reordering_are_shown_and_not_obeyed() {
        assert_eq!(visible("plain äöü 漢字"), "plain äöü 漢字");
        assert_eq!(visible("a\x1b[31mb"), "a\\x1b[31mb");
        assert_eq!(visible("a\nb\tc\rd\x7f\u{9b}"), "a\\nb\\tc\\rd\\x7f\\x9b");
        assert_eq!(visible("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    }

    proptest! {
        #[test]
        fn no_text_has_an_effect_on_a_terminal(text in ".*") {
            prop_assert!(!visible(&text).chars().any(is_active));
        }

        #[test]
        fn no_line_is_wider_than_the_terminal(
            cells in proptest::collection::vec(".{0,12}", 3), width in 0_usize..40,
        ) {
            let mut table = Table::new(&[("A", Align::Left), ("BB", Align::Right), ("C", Align::Left)]);
            table.row(cells.iter().map(|cell| (cell.as_str(), Some(Colour::Red))));
            let text = table.render(Style { colours: false, width: Some(width) });
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("ID", Align::Left), ("N", Align::Right), ("X", Align::Left)]);
        table.row([("abc", None), ("1", Some(Colour::Green)), ("y", None)]);
        table.row([("漢", None), ("22", None), ("", None)]);
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
    fn spans_and_sizes_are_short() {
        let of = |millis| span(Duration::from_millis(millis));
        assert_eq!(of(0), "0.0s");
        assert_eq!(of(1_250), "1.2s");
        assert_eq!(of(59_999), "59s");
        assert_eq!(of(3 * 60_000 + 7_000), "3m07s");
        assert_eq!(of(90_000_000), "1d01h");
        assert_eq!(size(0), "0");
        assert_eq!(size(1023), "1023");
        assert_eq!(size(1536), "1.5K");
        assert_eq!(size(64 << 20), "64M");
        assert_eq!(size(u64::MAX), "15E");
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        assert_eq!(
            command_line(["sh", "-c", "echo 'a' $b", "", "/x=1"]),
            r"sh -c 'echo '\''a'\'' $b' '' /x=1"
        );
    }
}
