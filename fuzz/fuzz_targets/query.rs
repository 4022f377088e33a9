//! The query of a list of jobs, its cursor included.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| procession::fuzz::query(text));
