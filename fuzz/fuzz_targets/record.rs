//! Record files, as they may be found after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    procession::fuzz::record_slot(bytes, false);
    procession::fuzz::record_slot(bytes, true);
    let mut payload = vec![1];
    payload.extend_from_slice(bytes);
    procession::fuzz::record_slot(&payload, true);
});
