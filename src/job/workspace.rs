//! A job's own directory: what is put into it, which names are allowed there, and what is kept of it.
//!
//! PURE. What is on disk is told to it; who reads and writes there is not known here.

mod patterns;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use patterns::{PATTERNS_MAX, PatternError, Patterns};

use crate::{JobId, NodeName, Spec, State};

/// The longest path within a workspace, in bytes.
pub const PATH_BYTES: usize = 4095;
/// The longest name of a file, in bytes (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;

/// A path within a workspace: relative, with no empty part, `.` or `..`, and no NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InnerPath(String);

/// Why a text is no path within a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Too many bytes, in all or in one name.
    #[error("a path has at most {PATH_BYTES} bytes, and each name in it at most {NAME_BYTES}")]
    TooLong,
    /// It could lead elsewhere, or nowhere.
    #[error("a path is relative to the workspace, without empty names, `.`, `..` and NUL")]
    Leads,
}

impl InnerPath {
    /// The path, if it is one.
    pub fn new(text: impl Into<String>) -> Result<Self, PathError> {
        let text = text.into();
        if text.len() > PATH_BYTES {
            return Err(PathError::TooLong);
        }
        for name in text.split('/') {
            if name.len() > NAME_BYTES {
                return Err(PathError::TooLong);
            }
            if name.is_empty() || name == "." || name == ".." || name.contains('\0') {
                return Err(PathError::Leads);
            }
        }
        Ok(Self(text))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that it is in, empty for the workspace itself, and its name there.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// Is it this path, or beneath it?
    #[must_use]
    pub fn is_within(&self, directory: &Self) -> bool {
        let rest = self.0.strip_prefix(&directory.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for InnerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<InnerPath> for String {
    fn from(path: InnerPath) -> Self {
        path.0
    }
}

impl TryFrom<String> for InnerPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Self::new(text)
    }
}

/// What becomes of the workspace at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The artifacts stay, the rest goes.
    #[default]
    Artifacts,
    /// Everything stays until the record expires.
    All,
    /// Nothing stays.
    None,
}

/// That a job has a directory of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workspace {
    /// What becomes of it at the end.
    pub keep: Keep,
}

/// The permission bits of a file; octal text such as `"0755"` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// What a file has that says nothing.
    pub const DEFAULT: Self = Self(0o644);

    /// The permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

impl TryFrom<String> for FileMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = (1..=4).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        let bits = u32::from_str_radix(&text, 8).ok().filter(|_| octal);
        bits.filter(|bits| *bits <= 0o777)
            .map(Self)
            .ok_or("an octal number from 0000 to 0777")
    }
}

/// A file that is in the workspace before the job starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it is put.
    pub path: InnerPath,
    /// What is in it.
    #[serde(flatten)]
    pub content: Content,
    /// Its permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// It is an archive, and what is in it is put into the directory of this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpack: Option<Unpack>,
}

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unpack {
    /// tar.
    #[serde(rename = "tar")]
    Tar,
    /// tar, compressed by gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// zip.
    #[serde(rename = "zip")]
    Zip,
}

impl Unpack {
    /// Every form, with its word in the API.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("tar", Self::Tar),
        ("tar.gz", Self::TarGz),
        ("zip", Self::Zip),
    ];
}

/// A file of another job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Whose.
    pub job: JobId,
    /// Where it is in the workspace of that job.
    pub path: InnerPath,
}

/// What is in an input, in the form in which the client gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// UTF-8 text.
    Text(String),
    /// Standard base64 with padding; it has been checked that it decodes.
    Base64(String),
    /// A part of the form that the job came in, of this name. It is not kept for a rerun.
    Part(String),
    /// What is in a file of another job.
    From(Source),
}

impl Content {
    /// About how many bytes it takes in a spec.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Base64(text) | Self::Part(text) => text.len(),
            Self::From(from) => from.path.as_str().len(),
        }
    }
}

/// The first input that cannot be where it should, since another one is there or in its way.
#[must_use]
pub fn clash(inputs: &[Input]) -> Option<usize> {
    let mut seen: Vec<(&InnerPath, usize)> = Vec::with_capacity(inputs.len());
    seen.extend(
        inputs
            .iter()
            .zip(0..)
            .map(|(input, place)| (&input.path, place)),
    );
    // Of two that clash, the one above is first, with none between them that is not beneath it as well, once `/` is the
    // least of all characters.
    let parts = |path: &InnerPath| path.0.replace('/', "\0");
    seen.sort_by_cached_key(|(path, place)| (parts(path), *place));
    let clashing = seen
        .windows(2)
        .filter(|pair| pair[1].0.is_within(pair[0].0));
    clashing.map(|pair| pair[0].1.max(pair[1].1)).min()
}

/// When artifacts are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// However the job ends.
    #[default]
    Always,
    /// If it succeeds.
    Success,
    /// If it does not.
    Failure,
}

/// Which files of the workspace are kept at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArtifactRules {
    /// Patterns; one that begins with `!` takes away.
    pub paths: Vec<String>,
    /// When.
    pub when: When,
    /// Bytes of all of them.
    pub max_bytes: u64,
    /// How many.
    pub max_files: u64,
}

impl Default for ArtifactRules {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            when: When::default(),
            max_bytes: 1 << 30,
            max_files: 10_000,
        }
    }
}

/// Where files are that were uploaded for a job which waits: they are in no store, and on one disk alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploads {
    /// The hub that has them.
    pub node: NodeName,
    /// What tells its directory of workspaces from all others.
    pub place: String,
}

/// What was found of the artifacts at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Artifacts {
    /// How many.
    pub files: u64,
    /// How large together.
    pub bytes: u64,
    /// There may be more: a limit was reached, and the whole workspace is kept until the record expires.
    pub truncated: bool,
    /// Patterns that match nothing.
    pub missing: Vec<String>,
    /// What could not be looked at.
    pub error: Option<String>,
}

/// What is kept of the workspace of a job that has ended.
#[derive(Debug)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// What matches.
    Matching(Patterns),
    /// All of it.
    Everything,
}

impl Kept {
    /// Of a job with this spec that has ended in this state.
    #[must_use]
    pub fn of(spec: &Spec, state: State) -> Self {
        match spec.workspace.unwrap_or_default().keep {
            Keep::All => Self::Everything,
            Keep::None => Self::Nothing,
            Keep::Artifacts => artifacts_of(spec, state).map_or(Self::Nothing, Self::Matching),
        }
    }

    /// Is this file kept?
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Matching(patterns) => patterns.is_match(path),
            Self::Everything => true,
        }
    }
}

/// The patterns of the artifacts of a job in this state; nothing if it has none. While a job lives, they are those that
/// it may get.
#[must_use]
pub fn artifacts_of(spec: &Spec, state: State) -> Option<Patterns> {
    let rules = spec.artifacts.as_ref()?;
    let wanted = match rules.when {
        When::Always => true,
        When::Success => !state.is_terminal() || state == State::Succeeded,
        When::Failure => state != State::Succeeded,
    };
    // They were checked when the job was accepted.
    wanted.then(|| Patterns::new(&rules.paths).ok()).flatten()
}

/// Counts artifacts, as they are found.
#[derive(Debug)]
pub struct Tally<'a> {
    rules: &'a ArtifactRules,
    patterns: &'a Patterns,
    found: Vec<bool>,
    counted: Artifacts,
}

impl<'a> Tally<'a> {
    /// Of these, which were made of the rules.
    #[must_use]
    pub fn new(rules: &'a ArtifactRules, patterns: &'a Patterns) -> Self {
        Self {
            rules,
            patterns,
            found: vec![false; rules.paths.len()],
            counted: Artifacts::default(),
        }
    }

    /// A regular file is there.
    pub fn add(&mut self, path: &str, bytes: u64) {
        let matching = self.patterns.matching(path);
        for place in &matching {
            if let Some(found) = self.found.get_mut(*place) {
                *found = true;
            }
        }
        if matching.is_empty() {
            return;
        }
        let total = self.counted.bytes.saturating_add(bytes);
        if self.counted.files >= self.rules.max_files || total > self.rules.max_bytes {
            self.counted.truncated = true;
            return;
        }
        self.counted.files += 1;
        self.counted.bytes = total;
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Artifacts {
        let patterns = self.rules.paths.iter().zip(self.found);
        let missing = patterns.filter(|(pattern, found)| !found && !pattern.starts_with('!'));
        Artifacts {
            missing: missing.map(|(pattern, _)| pattern.clone()).collect(),
            ..self.counted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_nowhere_but_into_the_workspace() {
        for good in [
            "a",
            "a/b.c",
            "..a/b..",
            "a b/ü",
            "-",
            "...",
            "x/".repeat(2000).trim_end_matches('/'),
        ] {
            assert!(InnerPath::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "./a", "a\0b",
        ] {
            assert_eq!(InnerPath::new(bad), Err(PathError::Leads), "{bad:?}");
        }
        let long = "x".repeat(NAME_BYTES + 1);
        assert_eq!(InnerPath::new(long), Err(PathError::TooLong));
        assert_eq!(
            InnerPath::new("x/".repeat(2500) + "y"),
            Err(PathError::TooLong)
        );
    }

    fn input(path: &str) -> Input {
        Input {
            path: InnerPath::new(path).unwrap(),
            content: Content::Text(String::new()),
            mode: None,
            unpack: None,
        }
    }

    #[test]
    fn two_inputs_cannot_be_in_one_place_or_one_within_the_other() {
        let clash = |paths: &[&str]| {
            let inputs: Vec<Input> = paths.iter().map(|path| input(path)).collect();
            super::clash(&inputs)
        };
        assert_eq!(clash(&["a", "b", "a.b", "ab", "c/a", "c/b"]), None);
        assert_eq!(clash(&["a", "b", "a"]), Some(2));
        assert_eq!(clash(&["a/b", "a-b", "a"]), Some(2));
        assert_eq!(clash(&["a", "a!", "a/b/c"]), Some(2));
    }

    #[test]
    fn modes_have_permission_bits_alone() {
        let mode = |text: &str| FileMode::try_from(text.to_owned()).map(FileMode::bits);
        assert_eq!(mode("0755"), Ok(0o755));
        assert_eq!(mode("7"), Ok(7));
        for bad in ["4755", "", "08", "+755", "00755", "x"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn inputs_come_back_as_they_were_stored() {
        let input = Input {
            mode: Some(FileMode(0o700)),
            ..input("in/run.sh")
        };
        let json = serde_json::to_value(&input).unwrap();
        let expected = serde_json::json!({"path": "in/run.sh", "text": "", "mode": "0700"});
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Input>(json).unwrap(), input);
    }

    #[test]
    fn what_is_kept_depends_on_the_end() {
        let spec = |keep, when| Spec {
            workspace: Some(Workspace { keep }),
            artifacts: Some(ArtifactRules {
                paths: vec!["out/**".into()],
                when,
                ..ArtifactRules::default()
            }),
            ..Spec::default()
        };
        let kept = |keep, when, state| Kept::of(&spec(keep, when), state).has("out/a");
        for (when, succeeded, failed) in [
            (When::Always, true, true),
            (When::Success, true, false),
            (When::Failure, false, true),
        ] {
            assert_eq!(kept(Keep::Artifacts, when, State::Succeeded), succeeded);
            assert_eq!(kept(Keep::Artifacts, when, State::TimedOut), failed);
            assert!(kept(Keep::All, when, State::Failed));
            assert!(!kept(Keep::None, when, State::Failed));
        }
        assert!(!Kept::of(&spec(Keep::Artifacts, When::Always), State::Failed).has("a"));
        assert!(!Kept::of(&Spec::default(), State::Succeeded).has("out/a"));
    }

    #[test]
    fn a_tally_names_patterns_that_match_nothing_and_stops_at_its_limits() {
        let rules = ArtifactRules {
            paths: vec![
                "*.log".into(),
                "dist".into(),
                "!x.log".into(),
                "none".into(),
            ],
            max_bytes: 10,
            max_files: 3,
            ..ArtifactRules::default()
        };
        let patterns = Patterns::new(&rules.paths).unwrap();
        let tally = |files: &[(&str, u64)]| {
            let mut tally = Tally::new(&rules, &patterns);
            for (path, bytes) in files {
                tally.add(path, *bytes);
            }
            tally.finish()
        };
        let found = tally(&[("a.log", 1), ("x.log", 5), ("dist/a/b", 2), ("c", 90)]);
        assert_eq!((found.files, found.bytes, found.truncated), (2, 3, false));
        assert_eq!(found.missing, ["none"]);
        assert!(tally(&[("a.log", 6), ("b.log", 5)]).truncated);
        let four = [("a.log", 1), ("b.log", 1), ("c.log", 1), ("d.log", 1)];
        assert!(tally(&four).truncated && !tally(&four[..3]).truncated);
    }
}
