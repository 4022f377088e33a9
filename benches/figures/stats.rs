//! Medians, percentiles and how they are written.

use std::time::Duration;

/// The value below which the fraction `at` of the values lies.
pub(crate) fn percentile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    // The rank is found by counting, so that no number has to be converted from a float.
    let mut rank = 0;
    while rank + 1 < sorted.len() && fraction(rank + 1, sorted.len()) <= at {
        rank += 1;
    }
    sorted[rank]
}

fn fraction(part: usize, whole: usize) -> f64 {
    float(part) / float(whole)
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// A count as a float; counts here are far below 2^32.
pub(crate) fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A large count as a float.
pub(crate) fn float64(count: u64) -> f64 {
    Duration::from_micros(count).as_secs_f64() * 1e6
}

/// Each value of `ours` by the value of `theirs` in the same round.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

/// Median with the least and the greatest.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(
        "{:.digits$} ({least:.digits$}–{most:.digits$})",
        median(values)
    )
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
