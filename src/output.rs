//! The on-disk log of a job: writer for the monitor, reader for the server.

/// placeholder
#[derive(Debug)]
pub struct Reader;
