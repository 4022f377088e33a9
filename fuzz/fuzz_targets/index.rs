//! Output files with any content: the reader neither panics nor goes on for ever.
#![no_main]

use std::cell::LazyCell;
use std::fs::{self, File};

use libfuzzer_sys::fuzz_target;
use procession::output::{Piece, Reader, Stream};

/// More steps than there are places in the input.
const STEPS: usize = 1000;

thread_local! {
    static DIRECTORY: LazyCell<tempfile::TempDir> =
        LazyCell::new(|| tempfile::tempdir_in("/dev/shm").expect("shared memory is mounted"));
}

fuzz_target!(|input: (u16, Vec<u8>, Vec<u8>, u64)| {
    let (second, index, log, from) = input;
    DIRECTORY.with(|directory| {
        let path = directory.path();
        // Half of the index makes a segment of its own, so that segments have to fit together as well.
        let (one, two) = index.split_at(index.len() / 2);
        let header = |kind: &[u8; 8], first: u64| {
            let mut header = kind.to_vec();
            for field in [first, first, 0] {
                header.extend_from_slice(&field.to_le_bytes());
            }
            header
        };
        let write = |first: u64, part: &str, head: &[u8], bytes: &[u8]| {
            let name = format!("{first:020}.{part}");
            fs::write(path.join(name), [head, bytes].concat()).expect("shared memory has room");
        };
        write(0, "idx", &header(b"PROCIDX1", 0), one);
        write(0, "log", &[], &log);
        if second > 0 {
            let kind = if second % 2 == 0 {
                b"PROCIDX1"
            } else {
                b"PROCGAP1"
            };
            write(second.into(), "idx", &header(kind, second.into()), two);
        }
        read(File::open(path).expect("it is there"), from);
        for entry in fs::read_dir(path).expect("it is there").flatten() {
            fs::remove_file(entry.path()).expect("it is ours");
        }
    });
});

fn read(directory: File, from: u64) {
    let Ok(mut reader) = Reader::open(directory.into()) else {
        return;
    };
    drop(reader.totals());
    for filter in [None, Some(Stream::Stdout), Some(Stream::Stderr)] {
        drop(reader.tail_lines(3, filter));
        drop(reader.tail_bytes(3, filter));
        for mut at in [0, from] {
            for _ in 0..STEPS {
                match reader.next(at, filter, 64) {
                    Ok(Some(Piece::Gap { to, .. })) if to > at => at = to,
                    Ok(Some(Piece::Data { next, .. })) if next > at => at = next,
                    // A reader that stands still is an error to whoever reads.
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
    drop(reader.offset_of_stream_position(Stream::Stdout, from));
}
