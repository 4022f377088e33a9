//! The keys that leave a job alone: Ctrl-P, then Ctrl-Q. PURE.

const FIRST: u8 = 0x10;
const SECOND: u8 = 0x11;
const INTERRUPT: u8 = 0x03;

/// What has been typed, looked through for the two keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The first one was typed, and is held back until the next.
    is_begun: bool,
}

impl Keys {
    /// What of it is for the job; `Err` with what comes before the two keys.
    pub(super) fn pass(&mut self, typed: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            if self.is_begun && *byte == SECOND {
                self.is_begun = false;
                return Err(passed);
            }
            if std::mem::take(&mut self.is_begun) {
                passed.push(FIRST);
            }
            if *byte == FIRST {
                self.is_begun = true;
            } else {
                passed.push(*byte);
            }
        }
        Ok(passed)
    }

    /// Does somebody want to leave while there is nobody to type to? Ctrl-C is no job's then.
    pub(super) fn leaves(&mut self, typed: &[u8]) -> bool {
        typed.contains(&INTERRUPT) || self.pass(typed).is_err()
    }
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
            assert_eq!((passed.as_slice(), has_left), (&b"ab"[..], true));
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
        ] {
            assert_eq!(keys.pass(typed), Ok(passed.to_vec()));
        }
        assert!(keys.leaves(b"\x03") && keys.leaves(b"\x10\x11") && !keys.leaves(b"q"));
    }
}
