//! How a node gets the files of a job that it is about to get.

use std::sync::Arc;
use std::time::Duration;

use crate::dial::Dialer;
use job::{JobId, NodeName};
use manager::Part;
use tokio::time::timeout;

/// So much is gathered before it is written.
const PIECE: usize = 256 << 10;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hub over whose link the jobs come.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) node: NodeName,
    pub(crate) epoch: u64,
}

impl Source {
    /// Writes the archive of a job's files to this part; the error says why it is not whole.
    pub(crate) async fn fetch(&self, job: JobId, mut part: Part) -> Result<Part, String> {
        let (epoch, job) = (self.epoch.to_string(), job.to_string());
        let query = [
            ("node", self.node.as_str()),
            ("epoch", &epoch),
            ("job", &job),
        ];
        let asked = self.dialer.get("/cluster/files", &query).await;
        let mut response = asked.map_err(|error| error.to_string())?;
        let mut gathered = Vec::new();
        loop {
            let came = timeout(PATIENCE, response.chunk()).await;
            let came = came.map_err(|_| "nothing more comes of them".to_owned())?;
            // Without its end an archive is none: the connection tells one from the other.
            let came = came.map_err(|error| format!("they break off: {error}"))?;
            let is_over = came.is_none();
            gathered.extend_from_slice(&came.unwrap_or_default());
            if is_over || gathered.len() >= PIECE {
                let written = part.write(std::mem::take(&mut gathered)).await;
                part = written.map_err(|error| error.to_string())?;
            }
            if is_over {
                return Ok(part);
            }
        }
    }
}
