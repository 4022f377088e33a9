//! `Range` headers: a part that is granted exists.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, u64, u64)| {
    let (value, kept_from, length) = input;
    procession::fuzz::range(&value, kept_from, length);
    let mut whole = b"bytes=".to_vec();
    whole.extend_from_slice(&value);
    procession::fuzz::range(&whole, kept_from, length);
});
