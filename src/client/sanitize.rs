//! Foreign text for terminals: everything that a terminal would act upon is shown instead of obeyed.
//!
//! Names, commands and messages come from whoever made a job, and a log may be anybody's. Moving the cursor,
//! setting titles and answering back are not for a reader. [`escape`] is for single lines, [`Sanitizer`] for
//! streams, whose colours stay.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with everything a terminal would act upon written as `\xNN` or `\u{NNNN}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
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

/// The longest colour sequence that is let through.
const LONGEST: usize = 32;

/// What ends every colour.
const RESET: &[u8] = b"\x1b[0m";

/// Makes a stream of bytes safe to show, wherever it is cut.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    /// A sequence that may become a colour, the first byte of a character that may act, or a carriage return.
    begun: Vec<u8>,
    /// A colour or another attribute is on.
    styled: bool,
}

impl Sanitizer {
    /// Appends these bytes as they may be shown.
    pub(super) fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.take(*byte, out);
        }
    }

    /// Appends what ends the stream: bytes that were held back, and the end of a colour that was left on.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for begun in std::mem::take(&mut self.begun) {
            plain(begun, out);
        }
        if std::mem::take(&mut self.styled) {
            out.extend(RESET);
        }
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.begun.as_slice() {
            [] => match byte {
                0x1b | 0xc2 | b'\r' => self.begun.push(byte),
                byte => plain(byte, out),
            },
            b"\r" => {
                self.begun.clear();
                // The end of a line as terminals and Windows write it.
                if byte != b'\n' {
                    plain(b'\r', out);
                }
                self.take(byte, out);
            }
            [0xc2] => {
                self.begun.clear();
                match byte {
                    // A control character of the second set (C1): 0x9b begins a sequence just as ESC [ does.
                    0x80..0xa0 => out.extend(format!("\\x{byte:02x}").into_bytes()),
                    byte => {
                        out.push(0xc2);
                        self.take(byte, out);
                    }
                }
            }
            _ => self.take_in_sequence(byte, out),
        }
    }

    fn take_in_sequence(&mut self, byte: u8, out: &mut Vec<u8>) {
        let fits = match (self.begun.len(), byte) {
            (1, b'[') => true,
            (1, _) => false,
            (_, b'0'..=b'9' | b';' | b':') => self.begun.len() < LONGEST,
            (_, b'm') => true,
            (_, _) => false,
        };
        if !fits {
            for begun in std::mem::take(&mut self.begun) {
                plain(begun, out);
            }
            self.take(byte, out);
            return;
        }
        self.begun.push(byte);
        if byte == b'm' {
            self.styled = !matches!(self.begun.as_slice(), b"\x1b[m" | RESET);
            out.append(&mut self.begun);
        }
    }
}

/// Control bytes in caret notation.
fn plain(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\n' | b'\t' => out.push(byte),
        0..0x20 => out.extend([b'^', byte + 0x40]),
        0x7f => out.extend(b"^?"),
        byte => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(parts: &[&[u8]]) -> String {
        let (mut sanitizer, mut out) = (Sanitizer::default(), Vec::new());
        for part in parts {
            sanitizer.show(part, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn colours_stay_and_everything_else_is_shown() {
        assert_eq!(
            shown(&[b"\x1b[1;31mred\x1b[0m\n\t"]),
            "\x1b[1;31mred\x1b[0m\n\t"
        );
        assert_eq!(
            shown(&[b"\x1b[2Ja\x1b]0;title\x07\r"]),
            "^[[2Ja^[]0;title^G"
        );
        assert_eq!(shown(&[b"\x1b\x1b[31m\x1b[3;"]), "^[\x1b[31m");
        assert_eq!(shown(&["ä漢 ".as_bytes()]), "ä漢 ");
        assert_eq!(shown(&[b"a\xc2", b"\x9b2J"]), "a\\x9b2J");
    }

    #[test]
    fn lines_may_end_as_terminals_end_them() {
        assert_eq!(
            shown(&[b"one\r\ntwo\r", b"\nthree\rfour"]),
            "one\ntwo\nthree^Mfour"
        );
        assert_eq!(shown(&[b"\r\r\n"]), "^M\n");
    }

    #[test]
    fn a_colour_that_is_left_on_ends_with_the_stream() {
        let end = |bytes: &[u8]| {
            let (mut sanitizer, mut out) = (Sanitizer::default(), Vec::new());
            sanitizer.show(bytes, &mut out);
            out.clear();
            sanitizer.finish(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(end(b"\x1b[31mred"), "\x1b[0m");
        assert_eq!(end(b"\x1b[31mred\x1b[m"), "");
        assert_eq!(end(b"plain"), "");
        assert_eq!(end(b"\x1b[1mbold\r"), "^M\x1b[0m");
        assert_eq!(end(b"\x1b[3"), "^[[3");
    }

    #[test]
    fn a_colour_may_come_in_pieces() {
        assert_eq!(shown(&[b"\x1b", b"[3", b"1", b"mx"]), "\x1b[31mx");
        assert_eq!(shown(&[b"\x1b", b"[3", b"1", b"J"]), "^[[31J");
    }

    #[test]
    fn escapes_and_reordering_are_shown_and_not_obeyed() {
        assert_eq!(escape("plain äöü 漢字"), "plain äöü 漢字");
        assert_eq!(escape("a\x1b[31mb"), "a\\x1b[31mb");
        assert_eq!(escape("a\nb\tc\rd\x7f\u{9b}"), "a\\nb\\tc\\rd\\x7f\\x9b");
        assert_eq!(escape("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    }

    proptest! {
        #[test]
        fn no_text_has_an_effect_on_a_terminal(text in ".*") {
            prop_assert!(!escape(&text).chars().any(is_active));
        }

        #[test]
        fn no_escape_is_left_but_those_of_colours(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut sanitizer, mut out) = (Sanitizer::default(), Vec::new());
            sanitizer.show(&bytes, &mut out);
            for at in 0..out.len() {
                prop_assert!(out[at] == 0x1b || !matches!(out[at], 0..=8 | 11..=31 | 127));
                if out[at] == 0x1b {
                    let rest = &out[at + 1..];
                    let end = rest.iter().position(|byte| *byte == b'm').unwrap();
                    prop_assert!(rest[..end].iter().skip(1).all(|byte| byte.is_ascii_digit() || b";:".contains(byte)));
                    prop_assert_eq!(rest[0], b'[');
                }
            }
        }
    }
}
