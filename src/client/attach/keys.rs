//! The keys that leave a job alone: Ctrl-P, then Ctrl-Q, or others. PURE.

use std::str::FromStr;
use std::time::Duration;

const INTERRUPT: u8 = 0x03;

/// So long the first keys are held back for the next one.
pub(super) const HOLD: Duration = Duration::from_millis(500);

/// A sequence of keys, as `ctrl-p,ctrl-q`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sequence(Vec<u8>);

impl Default for Sequence {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for Sequence {
    type Err = String;

    /// Keys are separated by commas; a key is `ctrl-` and a letter or one of `@[\]^_`, or a character. An empty
    /// text is no sequence: nothing leaves then.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no sequence of keys: write ctrl-p,ctrl-q or ctrl-],q");
        let mut keys = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            let control = key.strip_prefix("ctrl-");
            keys.push(match control.unwrap_or(key).as_bytes() {
                [letter] if control.is_none() && letter.is_ascii_graphic() => *letter,
                [letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]
                    if control.is_some() =>
                {
                    *letter & 0x1f
                }
                _ => return Err(wrong()),
            });
        }
        Ok(Self(keys))
    }
}

/// What has been typed, searched for the sequence.
#[derive(Debug, Default)]
pub(super) struct Keys {
    sequence: Sequence,
    /// So many keys of it were typed.
    matched: usize,
    /// Their bytes, which are held back until the next key.
    held: Vec<u8>,
}

impl Keys {
    pub(super) fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            matched: 0,
            held: Vec::new(),
        }
    }

    /// What of it is for the job; `Err` with what comes before the sequence.
    pub(super) fn pass(&mut self, typed: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + self.held.len());
        let mut rest = typed;
        while !rest.is_empty() {
            let Some((key, count)) = key(rest) else {
                passed.append(&mut self.release());
                passed.push(rest[0]);
                rest = &rest[1..];
                continue;
            };
            let (bytes, after) = rest.split_at(count);
            rest = after;
            if self.sequence.0.get(self.matched) != Some(&key) {
                passed.append(&mut self.release());
            }
            if self.sequence.0.get(self.matched) != Some(&key) {
                passed.extend(bytes);
                continue;
            }
            self.matched += 1;
            self.held.extend(bytes);
            if self.matched == self.sequence.0.len() {
                self.release();
                return Err(passed);
            }
        }
        Ok(passed)
    }

    /// Are bytes held back?
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The bytes that were held back, when no further key has come.
    pub(super) fn release(&mut self) -> Vec<u8> {
        self.matched = 0;
        std::mem::take(&mut self.held)
    }
}

/// Is Ctrl-C among this?
pub(super) fn has_interrupt(typed: &[u8]) -> bool {
    let mut rest = typed;
    while !rest.is_empty() {
        let (found, count) = key(rest).unwrap_or((0, 1));
        if found == INTERRUPT {
            return true;
        }
        rest = &rest[count..];
    }
    false
}

/// The first key of these bytes as the byte that it stands for, and how many bytes it takes. Terminals that were
/// asked to tell keys apart send `CSI 112 ; 5 u` or `CSI 27 ; 5 ; 112 ~` for Ctrl-P.
fn key(bytes: &[u8]) -> Option<(u8, usize)> {
    let (first, rest) = bytes.split_first()?;
    let Some(rest) = rest.strip_prefix(b"[").filter(|_| *first == 0x1b) else {
        return Some((*first, 1));
    };
    let length = rest
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    let text = std::str::from_utf8(&rest[..length]).ok()?;
    let mut numbers = text.split(';').map(|part| {
        part.split(':')
            .next()
            .unwrap_or_default()
            .parse::<u32>()
            .ok()
    });
    let (code, modifiers) = match rest[length] {
        b'u' => (numbers.next()??, numbers.next()??),
        b'~' if numbers.next()?? == 27 => {
            let modifiers = numbers.next()??;
            (numbers.next()??, modifiers)
        }
        _ => return None,
    };
    // One more than the bits: shift, alt, ctrl, super, hyper, meta, caps lock, num lock.
    let held = modifiers.checked_sub(1)? & 0b11_1111;
    let code = u8::try_from(code).ok().filter(u8::is_ascii)?;
    let key = match held {
        0b100 => code & 0x1f,
        0 => code,
        _ => return None,
    };
    Some((key, length + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_keys_leave_however_they_come() {
        for parts in [
            &[&b"ab\x10\x11cd"[..]][..],
            &[b"ab\x10", b"\x11"],
            &[b"a", b"b\x10", b"", b"\x11"],
            // As terminals send them that tell keys apart, with and without Num Lock.
            &[b"ab\x1b[112;5u", b"\x1b[113;5u"],
            &[b"ab\x1b[112;133u\x1b[113;133u"],
            &[b"ab\x1b[27;5;112~\x11"],
        ] {
            let mut keys = Keys::default();
            let mut passed = Vec::new();
            let mut has_left = false;
            for part in parts {
                match keys.pass(part) {
                    Ok(bytes) => passed.extend(bytes),
                    Err(bytes) => {
                        passed.extend(bytes);
                        has_left = true;
                    }
                }
            }
            assert_eq!(
                (passed.as_slice(), has_left),
                (&b"ab"[..], true),
                "{parts:?}"
            );
        }
    }

    #[test]
    fn everything_else_passes() {
        let mut keys = Keys::default();
        for (typed, passed) in [
            (&b"\x11\x03"[..], &b"\x11\x03"[..]),
            (b"a\x10", b"a"),
            (b"b", b"\x10b"),
            (b"\x10\x10", b"\x10"),
            (b"x", b"\x10x"),
            (b"\x1b[A\x1b[1;5C\x1b", b"\x1b[A\x1b[1;5C\x1b"),
            (b"\x1b[112;5u", b""),
            (b"\x1b[112;3u", b"\x1b[112;5u\x1b[112;3u"),
        ] {
            assert_eq!(keys.pass(typed), Ok(passed.to_vec()));
        }
        assert!(
            has_interrupt(b"a\x03") && has_interrupt(b"\x1b[99;5u") && !has_interrupt(b"c\x10")
        );
    }

    #[test]
    fn what_is_held_back_is_released() {
        let mut keys = Keys::default();
        assert_eq!(keys.pass(b"a\x10"), Ok(b"a".to_vec()));
        assert!(keys.is_holding());
        assert_eq!(keys.release(), b"\x10");
        assert!(!keys.is_holding());
        assert_eq!(keys.pass(b"\x11"), Ok(b"\x11".to_vec()));
    }

    #[test]
    fn other_keys_may_be_named() {
        let leaves = |sequence: &str, typed: &[u8]| {
            let mut keys = Keys::new(sequence.parse().unwrap());
            keys.pass(typed).is_err()
        };
        assert!(leaves("ctrl-],q", b"\x1dq") && !leaves("ctrl-],q", b"\x10\x11"));
        assert!(leaves("ctrl-@", b"\0") && leaves("~,.", b"~."));
        assert!(!leaves("", b"\x10\x11"));
        for wrong in ["ctrl-", "ctrl-P", "alt-a", "ab", ",", "ä"] {
            assert!(wrong.parse::<Sequence>().is_err(), "{wrong}");
        }
    }
}
