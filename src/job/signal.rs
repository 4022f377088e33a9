//! Signals by name and number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal that can be sent to a job: one of the named Linux signals, or a real-time signal (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

/// Names and numbers on x86-64 and arm64, the two supported machines, where they agree.
const NAMES: [(&str, i32); 31] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

/// The real-time signals as glibc offers them: 32 and 33 are its own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Signal {
    /// SIGTERM, the polite request to end.
    pub const TERM: Self = Self(15);
    /// SIGKILL, which no process can refuse.
    pub const KILL: Self = Self(9);
    /// SIGCONT, which wakes a stopped process.
    pub const CONT: Self = Self(18);
    /// SIGSTOP, which no process can refuse.
    pub const STOP: Self = Self(19);

    /// The signal with this number, if there is one a job can be sent.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        (matches!(number, 1..=31) || (RTMIN..=RTMAX).contains(&number)).then_some(Self(number))
    }

    /// The signal that the kernel says has ended a process: any at all, those among them that are the C library's own and
    /// that [`Signal::from_number`] does not know.
    #[must_use]
    pub fn that_ended(number: i32) -> Self {
        Self(number)
    }

    /// SIGTSTP, SIGTTIN and SIGTTOU: they suspend, but not processes whose group is orphaned.
    #[must_use]
    pub fn stops_from_a_terminal(self) -> bool {
        matches!(self.0, 20..=22)
    }

    /// The number, as `kill -l` shows it.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None if !(RTMIN..=RTMAX).contains(&self.0) => write!(f, "SIG{}", self.0),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = UnknownSignal;

    /// As a record has it: also one that can only end a process.
    fn try_from(text: String) -> Result<Self, UnknownSignal> {
        match text.strip_prefix("SIG").map(str::parse) {
            Some(Ok(number @ 32..=33)) => Ok(Self::that_ended(number)),
            Some(_) | None => text.parse(),
        }
    }
}

/// No signal has this name or number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal: use a name such as SIGTERM or TERM, or a number from 1 to 31 or 34 to 64")]
pub struct UnknownSignal;

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Takes `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3` and `SIGRTMAX-1`.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let upper = text.to_ascii_uppercase();
        if upper.starts_with(|first: char| first.is_ascii_digit()) {
            return upper
                .parse()
                .ok()
                .and_then(Self::from_number)
                .ok_or(UnknownSignal);
        }
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = NAMES
            .iter()
            .find(|(name, _)| name.strip_prefix("SIG") == Some(bare))
            .map(|(_, number)| *number);
        let alias = match bare {
            "IOT" => Some(6),
            "POLL" => Some(29),
            "CLD" => Some(17),
            _ => None,
        };
        let number = named
            .or(alias)
            .or_else(|| real_time(bare))
            .ok_or(UnknownSignal)?;
        Self::from_number(number).ok_or(UnknownSignal)
    }
}

fn real_time(bare: &str) -> Option<i32> {
    let (base, rest) = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, rest),
        (None, Some(rest)) => (RTMAX, rest),
        (None, None) => return None,
    };
    let plain = |digits: &str| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<i32>().ok())?
    };
    let number = match (base, rest) {
        (base, "") => base,
        (RTMIN, rest) => base.checked_add(plain(rest.strip_prefix('+')?)?)?,
        (_, rest) => base.checked_sub(plain(rest.strip_prefix('-')?)?)?,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_its_name() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn names_are_taken_in_every_usual_spelling() {
        for text in ["SIGTERM", "TERM", "term", "SigTerm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("SIGRTMAX-1".parse(), Ok(Signal(63)));
        assert_eq!("RTMIN+3".parse(), Ok(Signal(37)));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "-9", "32", "33", "65", "SIG", "SIGFOO", "9x", "RTMIN+31", "RTMIN--1",
            "RTMAX-31", " TERM",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(UnknownSignal), "{text:?}");
        }
    }
}
