//! The documents against what they describe: links, routes, generated parts, and the length of the README.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "docs/reference.rs"]
mod reference;
#[path = "../src/http/build/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// Every page for people.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    for entry in fs::read_dir(ROOT).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
    found
}

/// The heading as forges make an anchor of it.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            letter if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// In YAML, a comma ends a text that is not quoted and stands in braces, and makes a key of the rest.
#[test]
fn no_text_of_the_contract_is_cut_at_a_comma() {
    fn look(value: &serde_json::Value, place: &str) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let is_rest = value.is_null() && key.contains(' ');
            assert!(!is_rest, "{place}: quote the text that ends in {key:?}");
            look(value, &format!("{place}/{key}"));
        }
        for item in value.as_array().into_iter().flatten() {
            look(item, place);
        }
    }
    let contract = serde_norway::from_str(&read("openapi.yaml")).unwrap();
    look(&contract, "");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = target.exists()
                && (place.is_empty()
                    || fs::read_to_string(&target).unwrap().lines().any(|line| {
                        line.starts_with('#')
                            && anchor(line.trim_start_matches('#').trim()) == place
                    }));
            if !is_there {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(dead, Vec::<String>::new());
}

#[test]
fn every_route_of_the_contract_has_its_row() {
    let contract: serde_json::Value = serde_norway::from_str(&read("openapi.yaml")).unwrap();
    let mut routes = BTreeSet::new();
    let paths = contract["paths"].as_object().unwrap();
    // The page is one thing for people, whatever its addresses.
    for (path, methods) in paths
        .iter()
        .filter(|(path, _)| *path != "/" && !path.starts_with("/ui"))
    {
        for method in methods.as_object().unwrap().keys() {
            if ["get", "put", "post", "patch", "delete"].contains(&method.as_str()) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let page = read("docs/api.md");
    let rows: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(rows, routes);
}

/// Fields whose flag of `procession run` is not their own name with dashes, without `_seconds`.
const FLAGS: [(&str, &str); 19] = [
    ("inputs", "--in <FILE"),
    ("artifacts", "--out <PATTERN>"),
    ("command", "[COMMAND]..."),
    ("concurrency", "--key"),
    ("labels", "--label"),
    ("limits", "--memory"),
    ("no_new_privs", "--allow-new-privs"),
    ("output", "--max-output"),
    ("group", "--user <USER[:GROUP]>"),
    ("pty", "--tty"),
    ("ready", "--ready-port"),
    ("rlimits", "--rlimit"),
    ("stdin", "--interactive"),
    ("stop", "--stop-signal"),
    ("success_exit_codes", "--success-code"),
    ("supplementary_groups", "--supplementary-group"),
    ("ttl_seconds_after_finished", "--ttl"),
    ("wait_for", "--wait-for-all"),
    ("webhooks", "--webhook"),
];

#[test]
fn every_field_of_a_job_has_its_flag() {
    let contract: serde_json::Value = serde_norway::from_str(&read("openapi.yaml")).unwrap();
    let spec = &contract["components"]["schemas"]["JobSpec"]["required"];
    let spec = spec.as_array().unwrap().iter();
    let spec = spec.map(|field| field.as_str().unwrap());
    let help = Command::new(env!("CARGO_BIN_EXE_procession"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut missing = Vec::new();
    for field in spec.chain(["name", "labels", "command", "script", "shell"]) {
        let own = field.trim_end_matches("_seconds").replace('_', "-");
        let other = FLAGS.iter().find(|(name, _)| *name == field);
        let flag = other.map_or(format!("--{own}"), |(_, flag)| (*flag).to_owned());
        if !help.contains(&flag) {
            missing.push(format!("{field}: {flag}"));
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_readme_is_short() {
    let text = read("README.md");
    let prose: String = text.split("```").step_by(2).collect();
    let words = prose.split_whitespace().count();
    assert!(words <= 900, "{words} words");
}
