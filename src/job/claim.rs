//! Which machine of a cluster has a job. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::Cursor;
use crate::life::Stop;

/// The longest name of a node.
const NAME_MAX: usize = 63;

/// The name of a machine in a cluster: 1 to 63 letters, digits and `-_.`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = (1..=NAME_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
            && text
                .bytes()
                .next()
                .is_some_and(|it| it.is_ascii_alphanumeric());
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 63 letters, digits and -_. with a letter or digit first")
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which node has a job. A job starts on a node only if this is durable, in the store of the hub and in that of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The node.
    pub node: NodeName,
    /// The store of that node; another one of the same name has never had the job.
    pub store: String,
    /// Which claim of the job it is, from 1 on.
    pub fence: u32,
    /// The node has said that it has the job.
    pub confirmed: bool,
    /// The last event of the node's store that is in the hub's.
    pub seen: Cursor,
    /// What the node is asked whenever it is there anew: a stop that came while it was not, or that it has granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Box<Stop>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_host_or_a_pod_can_be_called() {
        for good in ["n7", "gpu-1.example.org", "7", "A_b"] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
