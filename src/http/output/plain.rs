//! Output as a person reads it at the end: without escape sequences, and of a progress line its last state.

use std::ops::Range;

use anstream::adapter::StripBytes;

use super::excerpt::Part;

/// The same run of output without what a terminal does not show.
pub(super) fn plain(part: &Part) -> Part {
    let stripped = part.with(visible(&part.bytes));
    stripped.with(last_states(&stripped.bytes))
}

/// What is no escape sequence.
fn visible(bytes: &[u8]) -> Vec<Range<usize>> {
    let begin = bytes.as_ptr().addr();
    StripBytes::new()
        .strip_next(bytes)
        .map(|kept| {
            let from = kept.as_ptr().addr() - begin;
            from..from + kept.len()
        })
        .collect()
}

/// Of each line what follows the last carriage return that is not at its end.
fn last_states(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut kept = Vec::new();
    let mut from = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let ended = line.strip_suffix(b"\n").unwrap_or(line);
        let returns = ended
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\r')
            .count();
        let shown = &ended[..ended.len() - returns];
        let overwritten = shown.iter().rposition(|byte| *byte == b'\r');
        let start = from + overwritten.map_or(0, |at| at + 1);
        kept.push(start..from + shown.len());
        kept.push(from + ended.len()..from + line.len());
        from += line.len();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let part = Part::of(bytes);
        String::from_utf8(plain(&part).bytes).unwrap()
    }

    #[test]
    fn colours_are_gone_and_progress_is_its_last_state() {
        assert_eq!(text(b"\x1b[31mred\x1b[0m\n"), "red\n");
        assert_eq!(text(b"\x1b]0;title\x07prompt\n"), "prompt\n");
        assert_eq!(text(b"1%\r50%\r100%\ndone\r\n"), "100%\ndone\n");
        assert_eq!(text(b"a\r\x1b[2K50%\r"), "50%");
        assert_eq!(text("gr\u{fc}n\n".as_bytes()), "gr\u{fc}n\n");
        assert_eq!(text(b""), "");
    }
}
