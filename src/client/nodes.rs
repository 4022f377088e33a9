//! `procession nodes` and `procession node`: the machines of a cluster.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::table::{Align, Colour, Table};
use super::terminal::{self, print, print_json};
use super::text::named;

#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Print the nodes as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give a node no new jobs; running jobs continue
    Drain(NameArgs),
    /// Give a drained node new jobs again
    Undrain(NameArgs),
    /// Give up a node that will not come back; its jobs are lost at once
    Forget(NameArgs),
}

#[derive(Debug, Args)]
struct NameArgs {
    /// Name of the node
    name: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// As much of a node as is shown.
#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    state: String,
    hub: bool,
    draining: bool,
    accepting: bool,
    /// An older hub has none.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    slots: u32,
    jobs: usize,
    weight: u64,
    version: Option<String>,
    since: String,
    lost_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct List {
    nodes: Vec<Value>,
    /// Of API nodes that share a ledger.
    ledger: Option<Value>,
}

/// As much of a ledger as is shown: who leads, and who follows.
#[derive(Debug, Deserialize)]
struct Ledger {
    leader: String,
    available: bool,
    followers: Vec<Follower>,
}

#[derive(Debug, Deserialize)]
struct Follower {
    url: String,
    version: String,
    heard: bool,
    behind: u64,
}

pub fn list(args: &NodesArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let list: List = client.json(|| client.get("/nodes")).await?;
        if args.json {
            let mut whole = json!({"nodes": list.nodes});
            if let Some(ledger) = list.ledger {
                whole["ledger"] = ledger;
            }
            print_json(&whole)?;
            return Ok(ExitCode::SUCCESS);
        }
        let unknown = |error: serde_json::Error| Failure::NotUnderstood(error.to_string());
        let nodes = list.nodes.iter().map(Node::deserialize);
        let nodes: Vec<Node> = nodes.collect::<Result<_, _>>().map_err(unknown)?;
        print(&table(&nodes).render(terminal::style()))?;
        if let Some(ledger) = list.ledger {
            let ledger = Ledger::deserialize(ledger).map_err(unknown)?;
            let text = api_nodes(&ledger).render(terminal::style());
            print(&format!("\n{text}"))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn run(args: &NodeArgs) -> ExitCode {
    execute::run(async {
        let (method, name, rest) = match &args.action {
            Action::Drain(name) => (Method::POST, name, "/drain"),
            Action::Undrain(name) => (Method::DELETE, name, "/drain"),
            Action::Forget(name) => (Method::DELETE, name, ""),
        };
        let client = Client::new(&name.connect)?;
        let path = format!("{}{rest}", path(&name.name));
        client.send(client.request(method, &path)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn path(name: &str) -> String {
    named("/nodes", name)
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(&[
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("RUNNING", Align::Right),
        ("VERSION", Align::Left),
        ("SINCE", Align::Left),
        ("LABELS", Align::Left),
        ("REMARK", Align::Fill),
    ]);
    for node in nodes {
        let jobs = match u64::try_from(node.jobs).unwrap_or_default() == node.weight {
            true => String::new(),
            false => format!(" ({} jobs)", node.jobs),
        };
        let running = format!("{}/{}{jobs}", node.weight, node.slots);
        let remark = match &node.lost_at {
            Some(at) => format!("its jobs are lost at {at}"),
            None if node.draining => "draining".to_owned(),
            None if node.state == "connected" && !node.accepting => "takes no jobs".to_owned(),
            None if node.hub => "the hub".to_owned(),
            None => String::new(),
        };
        // Those that each has by itself are seen elsewhere.
        let labels = node
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with("procession/"));
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let labels = labels.join(",");
        let colour = match (node.state.as_str(), node.accepting) {
            ("connected", true) => Colour::Green,
            ("connected", false) => Colour::Yellow,
            _ => Colour::Red,
        };
        let cells = [
            node.name.as_str(),
            node.state.as_str(),
            running.as_str(),
            node.version.as_deref().unwrap_or_default(),
            node.since.as_str(),
            labels.as_str(),
            remark.as_str(),
        ];
        table.row(&cells, Some((1, colour)));
    }
    table
}

/// The API nodes, the one that leads first.
fn api_nodes(ledger: &Ledger) -> Table {
    let mut table = Table::new(&[
        ("API NODE", Align::Left),
        ("ROLE", Align::Left),
        ("BEHIND", Align::Right),
        ("VERSION", Align::Left),
        ("REMARK", Align::Fill),
    ]);
    let (colour, remark) = match ledger.available {
        true => (Colour::Green, ""),
        false => (Colour::Red, "does not reach PostgreSQL"),
    };
    let cells = [ledger.leader.as_str(), "leads", "0", "", remark];
    table.row(&cells, Some((1, colour)));
    for follower in &ledger.followers {
        let (colour, remark) = match follower.heard {
            true => (Colour::Green, ""),
            false => (Colour::Red, "is not heard"),
        };
        let (url, version) = (follower.url.as_str(), follower.version.as_str());
        let behind = follower.behind.to_string();
        let cells = [url, "follows", behind.as_str(), version, remark];
        table.row(&cells, Some((1, colour)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Style;

    #[test]
    fn api_nodes_are_listed_with_who_leads_and_who_is_behind() {
        let ledger = json!({"role": "leads", "leader": "https://a:8443", "available": true, "followers": [
            {"url": "https://b:8443", "version": "0.1.0", "heard": true, "behind": 0},
            {"url": "https://c:8443", "version": "0.1.0", "heard": false, "behind": 12},
        ]});
        let ledger = Ledger::deserialize(ledger).unwrap();
        let text = api_nodes(&ledger).render(Style::default());
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "API NODE ROLE BEHIND VERSION REMARK",
                "https://a:8443 leads 0",
                "https://b:8443 follows 0 0.1.0",
                "https://c:8443 follows 12 0.1.0 is not heard",
            ]
        );
    }

    #[test]
    fn a_line_says_how_full_a_node_is_and_what_becomes_of_its_jobs() {
        let node = json!({"name": "n7", "state": "unreachable", "hub": false, "draining": true,
            "accepting": false, "labels": {"procession/name": "n7", "gpu": "a100"}, "slots": 4, "jobs": 2, "weight": 3, "version": null,
            "since": "2026-01-01T00:00:00Z", "lost_at": "2026-01-01T00:05:00Z"});
        let node = Node::deserialize(&node).unwrap();
        let text = table(&[node]).render(Style::default());
        let line = text.lines().nth(1).unwrap();
        assert!(
            line.starts_with("n7    unreachable  3/4 (2 jobs)"),
            "{line}"
        );
        assert!(
            line.contains("  gpu=a100  ") && !line.contains("procession/"),
            "{line}"
        );
        assert!(
            line.trim_end()
                .ends_with("its jobs are lost at 2026-01-01T00:05:00Z"),
            "{line}"
        );
    }

    #[test]
    fn a_name_is_no_other_path() {
        assert_eq!(path("n7.example"), "/nodes/n7.example");
        assert_eq!(path("../drain"), "/nodes/..%2Fdrain");
        assert_eq!(path(".."), "/nodes/%2E%2E");
    }
}
