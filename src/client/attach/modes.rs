//! What a job has changed about the terminal, so that it can be undone when the job is left alone. PURE.

use std::collections::BTreeSet;

/// The longest sequence that is looked at.
const LONGEST: usize = 32;

/// The cursor is shown unless a program hides it; every other mode is off unless it is set.
const CURSOR: u16 = 25;
/// Lines wrap unless a program says otherwise.
const WRAP: u16 = 7;

/// What the output so far has left changed.
#[derive(Debug, Default)]
pub(super) struct Modes {
    /// DEC private modes that are not as they are at first.
    changed: BTreeSet<u16>,
    keypad: bool,
    /// xterm's modifyOtherKeys.
    other_keys: bool,
    /// Levels of the kitty keyboard protocol.
    keyboards: u16,
    styled: bool,
    begun: Vec<u8>,
}

impl Modes {
    /// Looks at output, wherever it is cut.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.begun.as_slice(), byte) {
                (_, 0x1b) => {
                    self.begun.clear();
                    self.begun.push(0x1b);
                }
                ([], _) => {}
                ([0x1b], b'[') => self.begun.push(b'['),
                ([0x1b], b'=' | b'>') => {
                    self.keypad = *byte == b'=';
                    self.begun.clear();
                }
                // A reset of the terminal.
                ([0x1b], b'c') => *self = Self::default(),
                ([0x1b], _) => self.begun.clear(),
                (_, 0x20..=0x3f) if self.begun.len() < LONGEST => self.begun.push(*byte),
                (_, last) => {
                    let sequence = std::mem::take(&mut self.begun);
                    self.sequence(sequence.get(2..).unwrap_or_default(), *last);
                }
            }
        }
    }

    fn sequence(&mut self, parameters: &[u8], last: u8) {
        let text = std::str::from_utf8(parameters).unwrap_or_default();
        match (text.as_bytes().first(), last) {
            (Some(b'?'), b'h' | b'l') => {
                let modes = text[1..].split(';').filter_map(|mode| mode.parse().ok());
                for mode in modes {
                    let by_default = matches!(mode, CURSOR | WRAP);
                    if (last == b'h') == by_default {
                        self.changed.remove(&mode);
                    } else {
                        self.changed.insert(mode);
                    }
                }
            }
            (Some(b'>'), b'm') => self.other_keys = text.starts_with(">4;") && text != ">4;0",
            (Some(b'>'), b'u') => self.keyboards = self.keyboards.saturating_add(1),
            (Some(b'<'), b'u') => {
                let levels = text[1..].parse().unwrap_or(1);
                self.keyboards = self.keyboards.saturating_sub(levels);
            }
            (_, b'm') => self.styled = !matches!(text, "" | "0"),
            (_, _) => {}
        }
    }

    /// What gives the terminal back as it was.
    pub(super) fn restore(&mut self) -> Vec<u8> {
        let mut text = String::new();
        if self.styled {
            text.push_str("\x1b[0m");
        }
        if self.other_keys {
            text.push_str("\x1b[>4m");
        }
        if self.keyboards > 0 {
            text.push_str(&format!("\x1b[<{}u", self.keyboards));
        }
        if self.keypad {
            text.push_str("\x1b>");
        }
        // The alternate screen, whose numbers are 47, 1047 and 1049, goes last: the others belong to it.
        let is_screen = |mode: &&u16| matches!(**mode, 47 | 1047 | 1049);
        let (screens, modes): (Vec<&u16>, Vec<&u16>) = self.changed.iter().partition(is_screen);
        for mode in modes.into_iter().chain(screens) {
            let set = if matches!(*mode, CURSOR | WRAP) {
                'h'
            } else {
                'l'
            };
            text.push_str(&format!("\x1b[?{mode}{set}"));
        }
        *self = Self::default();
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore(parts: &[&str]) -> String {
        let mut modes = Modes::default();
        for part in parts {
            modes.see(part.as_bytes());
        }
        String::from_utf8(modes.restore()).unwrap()
    }

    #[test]
    fn what_an_editor_sets_is_undone_and_nothing_else() {
        let editor =
            "\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[?1006;1002h\x1b[>4;2m\x1b[?25l\x1b[1;31mtext";
        assert_eq!(
            restore(&[editor]),
            "\x1b[0m\x1b[>4m\x1b>\x1b[?1l\x1b[?25h\x1b[?1002l\x1b[?1006l\x1b[?2004l\x1b[?1049l"
        );
        let end = "\x1b[?1049l\x1b[?1l\x1b>\x1b[?2004l\x1b[?1002;1006l\x1b[>4m\x1b[?25h\x1b[m";
        assert_eq!(restore(&[editor, end]), "");
        assert_eq!(restore(&["plain \x1b[31mred\x1b[0m text"]), "");
        assert_eq!(restore(&["\x1b[>1u\x1b[>5u\x1b[<u"]), "\x1b[<1u");
        assert_eq!(restore(&["\x1b[?1049h\x1bc"]), "");
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        assert_eq!(restore(&["\x1b", "[?10", "49", "h"]), "\x1b[?1049l");
    }
}
