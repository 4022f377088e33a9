//! Output of jobs for a terminal: colours stay, and nothing else that a terminal would act upon.
//!
//! A log may be anybody's. Moving the cursor, setting titles, answering back and whatever else terminals do on
//! an escape sequence is not for a reader of logs.

/// The longest colour sequence that is let through.
const LONGEST: usize = 32;

/// What is needed to go on in the middle of a stream.
#[derive(Debug, Default)]
pub(super) struct Harmless {
    /// A sequence that may become a colour, or the first byte of a character that may act.
    begun: Vec<u8>,
}

impl Harmless {
    /// Appends these bytes as they may be shown.
    pub(super) fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.take(*byte, out);
        }
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.begun.is_empty() {
            match byte {
                0x1b | 0xc2 => self.begun.push(byte),
                byte => plain(byte, out),
            }
            return;
        }
        if self.begun == [0xc2] {
            self.begun.clear();
            match byte {
                // A control character of the second set (C1): 0x9b begins a sequence just as ESC [ does.
                0x80..0xa0 => out.extend(format!("\\x{byte:02x}").into_bytes()),
                byte => {
                    out.push(0xc2);
                    self.take(byte, out);
                }
            }
            return;
        }
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
        let (mut harmless, mut out) = (Harmless::default(), Vec::new());
        for part in parts {
            harmless.show(part, &mut out);
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
            "^[[2Ja^[]0;title^G^M"
        );
        assert_eq!(shown(&[b"\x1b\x1b[31m\x1b[3;"]), "^[\x1b[31m");
        assert_eq!(shown(&["ä漢 ".as_bytes()]), "ä漢 ");
        assert_eq!(shown(&[b"a\xc2", b"\x9b2J"]), "a\\x9b2J");
    }

    #[test]
    fn a_colour_may_come_in_pieces() {
        assert_eq!(shown(&[b"\x1b", b"[3", b"1", b"mx"]), "\x1b[31mx");
        assert_eq!(shown(&[b"\x1b", b"[3", b"1", b"J"]), "^[[31J");
    }

    proptest! {
        #[test]
        fn no_escape_is_left_but_those_of_colours(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut harmless, mut out) = (Harmless::default(), Vec::new());
            harmless.show(&bytes, &mut out);
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
