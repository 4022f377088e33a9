//! Messages between a hub and its nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| procession_fuzz_targets::link(bytes));
