//! Keys in what a terminal sends: several may come in one read.

/// Each key: a character, or a sequence that begins with ESC, such as an arrow (ECMA-48, 5.4).
pub(super) fn keys(typed: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = typed;
    std::iter::from_fn(move || {
        let (key, after) = rest.split_at_checked(length(rest))?;
        rest = after;
        (!key.is_empty()).then_some(key)
    })
}

/// How many bytes the first key has.
fn length(typed: &[u8]) -> usize {
    let length = match typed {
        [0x1b, b'[', parameters @ ..] => {
            let last = parameters
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte));
            2 + last.map_or(parameters.len(), |last| last + 1)
        }
        [0x1b, b'O', _, ..] => 3,
        [first, ..] => match first.leading_ones() {
            count @ 2..=4 => usize::try_from(count).unwrap_or(1),
            _ => 1,
        },
        [] => 0,
    };
    length.min(typed.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_that_come_together_are_told_apart() {
        let typed = "/sé\x1b[B\x1bOA\x1b[1;5Ax\x1b".as_bytes();
        let expected: [&[u8]; 8] = [
            b"/",
            b"s",
            "é".as_bytes(),
            b"\x1b[B",
            b"\x1bOA",
            b"\x1b[1;5A",
            b"x",
            b"\x1b",
        ];
        assert_eq!(keys(typed).collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(typed: Vec<u8>) {
            prop_assert_eq!(keys(&typed).collect::<Vec<_>>().concat(), typed);
        }
    }
}
