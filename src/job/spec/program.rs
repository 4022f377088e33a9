//! What a job executes, and what its program is given: arguments, variables, standard input.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What to run. Exactly one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    /// An argument vector, executed without a shell.
    Command {
        /// `argv`; the first item is looked up in the job's `PATH` where it has no slash.
        command: Vec<String>,
    },
    /// A text for a shell.
    Script {
        /// The text, appended to `shell` as its last argument.
        script: String,
        /// The shell and its options.
        shell: Vec<String>,
    },
}

impl Program {
    /// The argument vector that will be executed.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Command { command } => command.clone(),
            Self::Script { script, shell } => shell.iter().chain([script]).cloned().collect(),
        }
    }
}

/// Environment values that are never shown again: `Debug` and `Serialize` give the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Secrets {
    /// `{"NAME": null}`: the names, so that a reader sees that there is a secret, and no value.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, ())))
    }
}

impl<'de> Deserialize<'de> for Secrets {
    /// Reads back names (values `null`, as the store keeps them beside the job) as empty values.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
        Ok(Self(
            names
                .into_iter()
                .map(|(name, value)| (name, value.unwrap_or_default()))
                .collect(),
        ))
    }
}

/// Which variables of the service's environment a job gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvInherit {
    /// PATH HOME USER LOGNAME SHELL LANG LC_* TZ TMPDIR.
    #[default]
    Default,
    /// Nothing.
    None,
    /// These, where they are set.
    #[serde(untagged)]
    Names(Vec<String>),
}

/// What the job reads on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that clients write to.
    Open,
    /// These bytes, then the end.
    Data(StdinData),
}

/// The bytes for a job's standard input, in the form in which the client gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinData {
    /// UTF-8 text.
    Text(String),
    /// Standard base64 with padding; `parse.rs` has checked that it decodes.
    Base64(String),
}
