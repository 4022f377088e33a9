//! Which program is tested.

/// The program that was built with these tests, or its copy where they run as a copy (scripts/test-unprivileged.sh):
/// the variable, which the runner sets, wins over where it was built.
pub(crate) fn binary() -> String {
    std::env::var("CARGO_BIN_EXE_procession")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_procession").to_owned())
}
