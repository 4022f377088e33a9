//! Where the fuzz targets reach parsers that nobody else may call: `fuzz/` in the repository.
//!
//! Each takes any bytes and must not panic. What it asserts holds for every input.

use axum::http::header::RANGE;
use axum::http::{HeaderMap, HeaderValue};

use crate::http::{fuzz_query, fuzz_range};
use crate::wire::messages::{FromMonitor, FromSupervisor, Launch, ToMonitor, ToSupervisor};
use crate::{record, wire};

/// The query of a list of jobs, its cursor included.
pub fn query(text: &str) {
    fuzz_query(text);
}

/// A `Range` header for a stream of which a part was dropped.
pub fn range(value: &[u8], kept_from: u64, length: u64) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        let headers = HeaderMap::from_iter([(RANGE, value)]);
        fuzz_range(&headers, kept_from.min(length), length);
    }
}

/// A packet, as each role would read it.
pub fn packet(bytes: &[u8]) {
    drop(wire::decode::<ToSupervisor>(bytes));
    drop(wire::decode::<FromSupervisor>(bytes));
    drop(wire::decode::<Launch>(bytes));
    drop(wire::decode::<ToMonitor>(bytes));
    drop(wire::decode::<FromMonitor>(bytes));
    drop(wire::decode::<record::Record>(bytes));
}

/// One of the two halves of a record file; with `sealed` its checksum is made right first, so that what
/// lies behind it is reached.
pub fn record_slot(bytes: &[u8], sealed: bool) {
    if sealed {
        drop(record::parse_slot(&record::sealed(1, bytes)));
    } else {
        drop(record::parse_slot(bytes));
    }
}
