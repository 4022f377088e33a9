//! Bodies of requests: whatever is taken can be taken again and means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procession::job::parse::{self, SpecLimits};

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = parse::parse_body(bytes) else {
        return;
    };
    let limits = SpecLimits::default();
    if let Ok(new) = parse::parse_submission(&body, &limits) {
        assert_eq!(parse::fingerprint(&new), parse::fingerprint(&new.clone()));
    }
    drop(parse::parse_signal_body(&body));
    drop(parse::parse_size(&body));
    drop(parse::parse_template_request(&body, &limits));
});
