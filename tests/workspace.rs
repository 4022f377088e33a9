//! The walls between the crates: ARCHITECTURE.md's table against the manifests, and what some crates must not link.
//! And the sizes of CONTRIBUTING.md: how long a file may be, and in how many files a type may have its methods.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
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

/// The most lines of a file, its tests not counted.
const LINES_MAX: usize = 500;

/// In how many files a type may have methods of its own.
const IMPL_FILES_MAX: usize = 2;

/// The source files below a folder that are not tests, with their text without test modules.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, Vec<String>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs")
            && path.file_name().is_some_and(|it| it != "tests.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, without_tests(&text)));
        }
    }
}

/// The lines outside of modules that are compiled for tests only.
fn without_tests(text: &str) -> Vec<String> {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            kept.push(line.to_owned());
            continue;
        }
        // Further attributes, then one item: on one line, or up to the brace that closes it.
        let item = lines.by_ref().find(|line| !line.starts_with("#["));
        if item.is_some_and(|line| line.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    kept
}

/// The name of the type whose own methods begin on this line.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(parameters) => {
            let mut depth = 1;
            let end = parameters.find(|c| {
                depth += match c {
                    '<' => 1,
                    '>' => -1,
                    _ => 0,
                };
                depth == 0
            });
            &parameters[end? + 1..]
        }
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    let name = rest.split(['<', ' ', '{']).next()?;
    let is_of_trait = rest.contains(" for ");
    let name = name.rsplit("::").next()?;
    (!is_of_trait && !name.is_empty()).then_some(name)
}

/// The name of the type that is declared on this line.
fn declared(line: &str) -> Option<&str> {
    let words = line.split(['<', '(', ' ', '{', ';']);
    let mut words = words.skip_while(|word| !["struct", "enum", "union"].contains(word));
    let is_item = line.starts_with("pub") || line.starts_with("struct") || line.starts_with("enum");
    words.nth(1).filter(|_| is_item)
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    assert!(files.len() > 100, "the sources are found");
    let long: Vec<String> = files
        .iter()
        .filter(|(_, lines)| lines.len() > LINES_MAX)
        .map(|(path, lines)| format!("{} has {} lines", path.display(), lines.len()))
        .collect();
    assert_eq!(long, [""; 0], "at most {LINES_MAX}, tests not counted");
}

#[test]
fn no_type_is_spread_over_many_files() {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    // A type is named by the file that declares it, as there may be others of its name.
    let mut declarations: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (path, lines) in &files {
        for name in lines.iter().filter_map(|line| declared(line)) {
            declarations.entry(name).or_default().push(path);
        }
    }
    let mut spread: BTreeMap<(&str, &Path), BTreeSet<&Path>> = BTreeMap::new();
    for (path, lines) in &files {
        for name in lines.iter().filter_map(|line| implemented(line)) {
            let declaring = declarations.get(name).into_iter().flatten();
            // The nearest declaration: the file itself, or the one with which most of the path is shared.
            let shared = |other: &&&Path| {
                let pairs = path.components().zip(other.components());
                let same = pairs.take_while(|(one, other)| one == other).count();
                (
                    **other == path,
                    other.with_extension("") == path.parent().unwrap(),
                    same,
                )
            };
            let declaring = declaring.max_by_key(shared);
            let declaring = declaring.unwrap_or_else(|| panic!("{}: {name}", path.display()));
            spread.entry((name, declaring)).or_default().insert(path);
        }
    }
    assert!(spread.len() > 300, "the types are found");
    spread.retain(|_, files| files.len() > IMPL_FILES_MAX);
    assert!(
        spread.is_empty(),
        "methods in more than {IMPL_FILES_MAX} files: {spread:#?}"
    );
}
