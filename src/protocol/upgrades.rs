//! What became of the upgrades of a service: a small file in its state directory, which the supervisor writes and
//! `procession upgrade` waits for.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::state_dir::private_file;

/// The file's name in the state directory.
const FILE: &str = "upgrade";

/// The last upgrade of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Each has a number, one more than the one before.
    pub number: u64,
    pub outcome: Outcome,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Under way.
    Asked,
    /// The new program serves; this is its version.
    Done(String),
    /// The program before it serves on, since the new one does not: why.
    Refused(String),
}

/// The last upgrade; `None` if there was none.
pub fn last(state_dir: &Path) -> Option<Upgrade> {
    parse(&fs::read_to_string(state_dir.join(FILE)).ok()?)
}

/// Notes how far an upgrade is. Whoever reads at the same time sees the note before, or this one.
pub fn note(state_dir: &Path, upgrade: &Upgrade) -> io::Result<()> {
    let fresh = state_dir.join("upgrade.new");
    let mut file = private_file(&fresh, false)?;
    file.set_len(0)?;
    file.write_all(text(upgrade).as_bytes())?;
    fs::rename(&fresh, state_dir.join(FILE))
}

fn text(upgrade: &Upgrade) -> String {
    let number = upgrade.number;
    match &upgrade.outcome {
        Outcome::Asked => format!("{number} asked "),
        Outcome::Done(version) => format!("{number} done {version}"),
        Outcome::Refused(why) => format!("{number} refused {why}"),
    }
}

fn parse(text: &str) -> Option<Upgrade> {
    let mut parts = text.splitn(3, ' ');
    let number = parts.next()?.parse().ok()?;
    let (word, rest) = (parts.next()?, parts.next()?.to_owned());
    let outcome = match word {
        "asked" => Outcome::Asked,
        "done" => Outcome::Done(rest),
        "refused" => Outcome::Refused(rest),
        _ => return None,
    };
    Some(Upgrade { number, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(last(home.path()), None);
        for outcome in [
            Outcome::Asked,
            Outcome::Refused("a line\nand another".to_owned()),
            Outcome::Done("0.1.0".to_owned()),
        ] {
            let upgrade = Upgrade { number: 7, outcome };
            note(home.path(), &upgrade).unwrap();
            assert_eq!(last(home.path()), Some(upgrade));
        }
        assert_eq!(parse("7"), None);
        assert_eq!(parse("x asked "), None);
    }
}
