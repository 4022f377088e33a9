//! What the roles leave for each other and say to each other: records, output, messages, and the names in the
//! state directory.
//!
//! A monitor may be older or newer than the server that it talks to: fields are only ever added, with a default.

pub mod codec;
pub mod inherited;
pub mod listeners;
pub mod notices;
pub mod output;
pub mod record;
pub mod state_dir;
pub mod stderr;
pub mod upgrades;
pub mod wire;
