//! Messages between the roles.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    procession::fuzz::packet(bytes);
    // With the version that is read, so that more of the inputs reach the decoder.
    let mut packet = vec![1];
    packet.extend_from_slice(bytes);
    procession::fuzz::packet(&packet);
});
