//! Headers that have a grammar of their own.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| procession_fuzz_targets::headers(bytes));
