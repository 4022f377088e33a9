//! As whom a job runs: names or numbers of users and groups, and its file mode creation mask.

use serde::{Deserialize, Serialize};

/// A user or group as the client named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NameOrId {
    /// A uid or gid.
    Id(u32),
    /// A name to look up on this machine.
    Name(String),
}

/// A file mode creation mask; octal text such as `"0022"` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Umask(u32);

impl Umask {
    /// The mask with these permission bits, where they are within 0777.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits <= 0o777).then_some(Self(bits))
    }

    /// The permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Umask {
    fn default() -> Self {
        Self(0o022)
    }
}

impl From<Umask> for String {
    fn from(umask: Umask) -> Self {
        format!("{:04o}", umask.0)
    }
}

impl TryFrom<String> for Umask {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = !text.is_empty()
            && text.len() <= 4
            && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = if octal {
            u32::from_str_radix(&text, 8).ok()
        } else {
            None
        };
        bits.and_then(Self::from_bits)
            .ok_or("an octal number from 0000 to 0777")
    }
}
