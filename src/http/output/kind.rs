//! The media type of raw output: text if it begins as text does, else bytes.

use std::io;

use axum::http::HeaderMap;

use crate::accept;
use crate::problem::ApiError;
use protocol::output::{Piece, Reader, Stream};

const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

/// So many bytes are looked at, in so many pieces.
const LOOKED_AT: usize = 4096;
const PIECES: usize = 64;

/// What a client takes for an answer with output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The best of what is offered.
    pub(super) chosen: &'static str,
    takes_bytes: bool,
}

impl Kind {
    pub(super) fn of(
        headers: &HeaderMap,
        offered: &'static [&'static str],
    ) -> Result<Self, ApiError> {
        Ok(Self {
            chosen: accept::choose(headers, offered)?,
            takes_bytes: accept::choose(headers, &[BYTES]).is_ok(),
        })
    }

    /// The type of the answer. A client that takes nothing but text gets that whatever the bytes are, but no word of UTF-8.
    pub(super) fn name(self, is_text: bool) -> &'static str {
        match self.chosen {
            TEXT if is_text => "text/plain; charset=utf-8",
            TEXT if self.takes_bytes => BYTES,
            other => other,
        }
    }
}

/// Does what is kept of a stream, or of both, begin as text in UTF-8 does? That of which nothing is kept, or that cannot be
/// read, does.
pub(super) fn is_text(reader: &mut Reader, stream: Option<Stream>) -> bool {
    beginning(reader, stream).map_or(true, |(bytes, is_whole)| looks_like_text(&bytes, is_whole))
}

/// The bytes, and whether they are the first ones that the job has written.
fn beginning(reader: &mut Reader, stream: Option<Stream>) -> io::Result<(Vec<u8>, bool)> {
    let (mut at, is_whole) = match stream {
        None => {
            let first = reader.totals()?.first_offset;
            (first, first == 0)
        }
        Some(stream) => {
            let oldest = reader.offset_of_stream_position(stream, 0)?;
            (oldest.offset, oldest.position == 0)
        }
    };
    let mut found = Vec::new();
    for _ in 0..PIECES {
        match reader.next(at, stream, LOOKED_AT - found.len())? {
            Some(Piece::Data { bytes, next, .. }) => {
                found.extend_from_slice(&bytes);
                at = next;
            }
            Some(Piece::Gap { .. }) | None => break,
        }
        if found.len() >= LOOKED_AT {
            break;
        }
    }
    Ok((found, is_whole))
}

fn looks_like_text(bytes: &[u8], is_whole: bool) -> bool {
    let is_rest = |byte: &&u8| !is_whole && (0x80..0xc0).contains(*byte);
    let rest = bytes.iter().take(3).take_while(is_rest).count();
    let bytes = &bytes[rest..];
    let is_cut_or_right = |error: std::str::Utf8Error| error.error_len().is_none();
    !bytes.contains(&0) && str::from_utf8(bytes).map_or_else(is_cut_or_right, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_may_begin_and_end_within_a_character() {
        let euro = "€".as_bytes();
        for (bytes, is_whole, expected) in [
            (&b""[..], true, true),
            (b"plain\n\x1b[31mred", true, true),
            (euro, true, true),
            (&euro[..2], true, true),
            (&euro[1..], false, true),
            (&euro[1..], true, false),
            (b"\xffabc", true, false),
            (b"\xff\xff", false, false),
            (b"a\0b", true, false),
            (b"caf\xe9 au lait", true, false),
        ] {
            assert_eq!(looks_like_text(bytes, is_whole), expected, "{bytes:?}");
        }
    }
}
