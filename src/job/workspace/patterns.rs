//! Patterns of files: `*` within a name, `**` over directories, `!` takes away.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::InnerPath;

/// The most patterns of a job.
pub const PATTERNS_MAX: usize = 64;
/// The longest pattern, in bytes.
const PATTERN_BYTES: usize = 1024;

/// Patterns that can be asked.
#[derive(Clone, Debug)]
pub struct Patterns {
    wanted: GlobSet,
    /// Which pattern each of `wanted` is of.
    places: Vec<usize>,
    unwanted: GlobSet,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct PatternError {
    /// Which one.
    pub place: usize,
    /// What is allowed.
    pub why: String,
}

impl Patterns {
    /// Reads the patterns. One that names a directory stands for all that is in it.
    pub fn new(paths: &[String]) -> Result<Self, PatternError> {
        let mut wanted = GlobSetBuilder::new();
        let mut unwanted = GlobSetBuilder::new();
        let mut places = Vec::new();
        for (place, path) in paths.iter().enumerate() {
            let refuse = |why: &str| PatternError {
                place,
                why: why.to_owned(),
            };
            let pattern = path.strip_prefix('!').unwrap_or(path);
            let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
            if pattern.len() > PATTERN_BYTES {
                return Err(refuse("a pattern has at most 1024 bytes"));
            }
            InnerPath::new(pattern).map_err(|error| refuse(&error.to_string()))?;
            for glob in [pattern.to_owned(), format!("{pattern}/**")] {
                let glob = GlobBuilder::new(&glob).literal_separator(true).build();
                let glob = glob.map_err(|error| refuse(&error.kind().to_string()))?;
                if path.starts_with('!') {
                    unwanted.add(glob);
                } else {
                    wanted.add(glob);
                    places.push(place);
                }
            }
        }
        let too_large = |_| PatternError {
            place: 0,
            why: "the patterns are too large together".to_owned(),
        };
        Ok(Self {
            wanted: wanted.build().map_err(too_large)?,
            places,
            unwanted: unwanted.build().map_err(too_large)?,
        })
    }

    /// Does this path match one of them, and none that takes away?
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        self.wanted.is_match(path) && !self.unwanted.is_match(path)
    }

    /// The places of those that it matches; empty if it is taken away.
    #[must_use]
    pub fn matching(&self, path: &str) -> Vec<usize> {
        if self.unwanted.is_match(path) {
            return Vec::new();
        }
        let matching = self.wanted.matches(path).into_iter();
        let mut places: Vec<usize> = matching
            .filter_map(|it| self.places.get(it).copied())
            .collect();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(paths: &[&str]) -> Result<Patterns, PatternError> {
        let paths: Vec<String> = paths.iter().map(|it| (*it).to_owned()).collect();
        Patterns::new(&paths)
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_do_not() {
        let matches = |pattern: &str, path: &str| patterns(&[pattern]).unwrap().is_match(path);
        assert!(matches("*.log", "a.log"));
        assert!(!matches("*.log", "b/a.log"));
        assert!(matches("**/*.log", "b/a.log") && matches("**/*.log", "a.log"));
        assert!(matches("out/**", "out/a/b") && !matches("out/**", "output/a"));
        assert!(matches("out", "out/a/b") && matches("out/", "out/a"));
        assert!(matches("{a,b}/?.txt", "b/1.txt") && !matches("{a,b}/?.txt", "c/1.txt"));
        assert!(matches("**", "anything/at/all"));
    }

    #[test]
    fn an_exclamation_mark_takes_away_whatever_the_order() {
        let patterns = patterns(&["!out/tmp", "out/**", "out/a"]).unwrap();
        assert!(patterns.is_match("out/a") && !patterns.is_match("out/tmp/x"));
        assert_eq!(patterns.matching("out/a"), [1, 2]);
        assert!(patterns.matching("out/tmp/x").is_empty());
    }

    #[test]
    fn a_pattern_stays_in_the_workspace() {
        for bad in [
            "/etc/*",
            "../*",
            "a/../b",
            "",
            "!",
            "a//b",
            "[z-a]",
            "{a",
            &"x/".repeat(600),
        ] {
            let refused = patterns(&["ok", bad]);
            assert_eq!(refused.unwrap_err().place, 1, "{bad}");
        }
    }
}
