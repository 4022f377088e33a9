//! Record files, as they may be found after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| procession_fuzz_targets::record_slots(bytes));
