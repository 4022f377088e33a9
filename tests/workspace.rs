//! The walls between the crates: ARCHITECTURE.md's table against the manifests, and what some crates must not link.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The crates that a manifest of the workspace names as dependencies of the product.
fn used(name: &str) -> BTreeSet<String> {
    let manifest = Path::new(ROOT).join("src").join(name).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let members = members();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let ours = dependencies.keys().filter(|key| members.contains(*key));
    ours.cloned().collect()
}

fn members() -> BTreeSet<String> {
    let folders = fs::read_dir(Path::new(ROOT).join("src")).unwrap();
    let folders = folders.map(|folder| folder.unwrap().path());
    let crates = folders.filter(|folder| folder.join("Cargo.toml").exists());
    crates
        .map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_crates_use_what_the_table_in_architecture_says() {
    let text = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `src/")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').trim_start_matches("src/");
        if name.contains("main.rs") {
            continue;
        }
        let said: BTreeSet<String> = cells[3]
            .split(", ")
            .filter(|word| *word != "–")
            .map(str::to_owned)
            .collect();
        assert_eq!(used(name), said, "of {name}");
        seen.insert(name.to_owned());
    }
    assert_eq!(seen, members(), "every crate has its row");
}

#[test]
fn the_image_is_built_from_every_crate() {
    let text = fs::read_to_string(Path::new(ROOT).join("Dockerfile")).unwrap();
    for name in members() {
        let line = format!("COPY src/{name}/Cargo.toml src/{name}/");
        assert!(text.lines().any(|have| have == line), "{line}");
    }
}

#[test]
fn some_crates_link_nothing_of_what_they_must_not_know() {
    let forbidden = [
        ("procession-job", &["nix", "tokio", "serde_json"][..]),
        (
            "procession-engine",
            &["tokio", "axum", "hyper", "serde_json", "rusqlite"][..],
        ),
    ];
    for (name, unwanted) in forbidden {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--edges", "normal"])
            .args(["--prefix", "none", "--package", name])
            .current_dir(ROOT)
            .output()
            .unwrap();
        let text = String::from_utf8(tree.stdout).unwrap();
        assert!(
            tree.status.success() && text.starts_with(name),
            "{}",
            String::from_utf8_lossy(&tree.stderr)
        );
        let linked: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        for one in unwanted {
            assert!(!linked.contains(one), "{name} links {one}");
        }
    }
}
