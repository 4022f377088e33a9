//! Label selectors.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use procession::job::selector::Selector;

fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<Selector>() {
        let none = selector.matches(&BTreeMap::new());
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        std::hint::black_box((none, selector.matches(&labels)));
    }
});
