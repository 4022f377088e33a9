//! Where in a cluster a job may run, and what becomes of it if its node is lost. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::outcome::Exit;
use crate::selector::Selector;
use crate::time::Timestamp;
use crate::{NodeName, State};

/// What every node is labelled with by itself begins with this.
pub const OWN_LABELS: &str = "procession/";

/// The nodes that a job may run on. Without a condition it is any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Conditions on the labels of the node.
    #[serde(skip_serializing_if = "Selector::is_empty")]
    pub node_selector: Selector,
    /// One of these nodes; empty for any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
}

impl Placement {
    /// May it be this node?
    #[must_use]
    pub fn allows(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        (self.nodes.is_empty() || self.nodes.contains(name)) && self.node_selector.matches(labels)
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        match (names.is_empty(), self.node_selector.is_empty()) {
            (false, false) => write!(f, "{} and {}", names.join(" or "), self.node_selector),
            (false, true) => f.write_str(&names.join(" or ")),
            (true, _) => self.node_selector.fmt(f),
        }
    }
}

/// What becomes of a job whose node is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNodeLoss {
    /// It is lost: it may still run where nobody hears it.
    #[default]
    Lost,
    /// It starts again elsewhere, even if it may still run where nobody hears it.
    Restart,
}

impl OnNodeLoss {
    /// Is it what happens without a word?
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::Lost
    }
}

/// What a node has reported of a job that had been given up for lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The node.
    pub node: NodeName,
    /// The state of the job there.
    pub state: State,
    /// How its leader ended.
    pub exit: Option<Exit>,
    /// When it ended, by the clock of the node.
    pub finished_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_allowed_by_name_and_by_labels() {
        let name: NodeName = "n7".parse().unwrap();
        let labels = [("gpu".to_owned(), "a100".to_owned())].into();
        for (nodes, selector, allowed, shown) in [
            (&[][..], "", true, ""),
            (&["n7"], "", true, "n7"),
            (&["n6", "n7"], "gpu=a100", true, "n6 or n7 and gpu=a100"),
            (&["n6"], "", false, "n6"),
            (&[], "gpu in (a100, h100)", true, "gpu in (a100,h100)"),
            (&[], "!gpu", false, "!gpu"),
            (&["n7"], "zone=a", false, "n7 and zone=a"),
        ] {
            let placement = Placement {
                node_selector: selector.parse().unwrap(),
                nodes: nodes.iter().map(|it| it.parse().unwrap()).collect(),
            };
            assert_eq!(placement.allows(&name, &labels), allowed, "{placement}");
            assert_eq!(placement.to_string(), shown);
            let text = serde_json::to_string(&placement).unwrap();
            assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement);
        }
    }
}
