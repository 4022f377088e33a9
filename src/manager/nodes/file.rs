//! The file of the nodes that have joined: who they are, so that a hub that starts again knows whom to wait for.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use job::NodeName;

/// The name of the file in the state directory.
pub(super) const NAME: &str = "nodes.json";

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) name: NodeName,
    /// Its store; empty for the hub itself.
    #[serde(default)]
    pub(super) store: String,
    /// Whose token it joined with.
    #[serde(default)]
    pub(super) actor: String,
    #[serde(default)]
    pub(super) slots: u32,
    #[serde(default)]
    pub(super) draining: bool,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    nodes: Vec<Saved>,
}

/// The nodes; none if there is no file.
pub(super) fn read(state_dir: &Path) -> io::Result<Vec<Saved>> {
    let text = match fs::read(state_dir.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let content: Content = serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("{NAME} in the state directory: {error}")))?;
    Ok(content.nodes)
}

/// Puts the nodes in the place of those that were there; durable when this returns.
pub(super) fn write(state_dir: &Path, nodes: Vec<Saved>) -> io::Result<()> {
    let new = state_dir.join("nodes.json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(&Content { nodes })?)?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join(NAME))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_broken_is_no_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let saved = Saved {
            name: "n7".parse().unwrap(),
            store: "urn:uuid:1".to_owned(),
            actor: "token:n7".to_owned(),
            slots: 4,
            draining: true,
            labels: [("gpu".to_owned(), "a100".to_owned())].into(),
        };
        write(dir.path(), vec![saved.clone()]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [saved]);
        fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains(NAME));
    }
}
