//! The types of a template's parameters.

use std::fs;
use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::{Argument, code};

/// The most bytes of a value.
const VALUE_BYTES: usize = 4096;
/// The most memory of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

/// A parameter as the file has it.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RawParam {
    Integer { min: i64, max: i64 },
    Enum { values: Vec<String> },
    Pattern { pattern: String },
    Path { beneath: PathBuf },
}

#[derive(Clone, Debug)]
pub(super) enum Param {
    Integer {
        min: i64,
        max: i64,
    },
    Enum(Vec<String>),
    /// Anchored at both ends. The engine takes linear time.
    Pattern {
        whole: Regex,
        shown: String,
    },
    /// A path below this directory.
    Path {
        beneath: PathBuf,
    },
}

/// Why a value is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

fn refused<T>(code: &'static str, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Refused {
        code,
        detail: detail.into(),
    })
}

impl Param {
    pub(super) fn compile(raw: RawParam) -> Result<Self, String> {
        match raw {
            RawParam::Integer { min, max } if min <= max => Ok(Self::Integer { min, max }),
            RawParam::Integer { .. } => Err("min must not be above max".to_owned()),
            RawParam::Enum { values } if values.is_empty() => {
                Err("values must have at least one item".to_owned())
            }
            RawParam::Enum { values } => Ok(Self::Enum(values)),
            RawParam::Pattern { pattern } => {
                let compile = |pattern: &str| {
                    RegexBuilder::new(pattern)
                        .size_limit(PATTERN_BYTES)
                        .build()
                        .map_err(|error| {
                            let text = error.to_string();
                            format!("pattern: {}", text.lines().last().unwrap_or_default())
                        })
                };
                // Alone first: a pattern such as `a)|(b` would reach out of the anchors.
                compile(&pattern)?;
                Ok(Self::Pattern {
                    whole: compile(&format!(r"\A(?:{pattern})\z"))?,
                    shown: pattern,
                })
            }
            RawParam::Path { beneath } => {
                let plain = beneath.to_str().is_some_and(|text| {
                    text.strip_prefix('/').is_some_and(is_plain) && beneath.is_absolute()
                });
                if plain {
                    Ok(Self::Path { beneath })
                } else {
                    Err("beneath must be an absolute path below / without . and ..".to_owned())
                }
            }
        }
    }

    /// The JSON Schema of its values.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Integer { min, max } => {
                json!({"type": "integer", "minimum": min, "maximum": max})
            }
            Self::Enum(values) => json!({"type": "string", "enum": values}),
            Self::Pattern { shown, .. } => {
                json!({"type": "string", "pattern": format!("^(?:{shown})$"), "maxLength": VALUE_BYTES})
            }
            Self::Path { beneath } => json!({
                "type": "string",
                "maxLength": VALUE_BYTES,
                "description": format!("A path beneath {}.", beneath.display()),
                "x-beneath": beneath,
            }),
        }
    }

    /// The argument that a value becomes.
    pub(super) fn argument(&self, value: &Argument) -> Result<String, Refused> {
        match (self, value) {
            (Self::Integer { min, max }, Argument::Integer(number)) => {
                if (min..=max).contains(&number) {
                    Ok(number.to_string())
                } else {
                    refused(code::OUT_OF_RANGE, integers(*min, *max))
                }
            }
            (Self::Integer { min, max }, Argument::Text(_)) => {
                refused(code::WRONG_TYPE, integers(*min, *max))
            }
            (Self::Enum(_) | Self::Pattern { .. } | Self::Path { .. }, Argument::Integer(_)) => {
                refused(code::WRONG_TYPE, "must be a string")
            }
            (Self::Enum(_) | Self::Pattern { .. } | Self::Path { .. }, Argument::Text(text)) => {
                self.check(text).map(|()| text.clone())
            }
        }
    }

    /// Is there a value that becomes this argument?
    pub(super) fn makes(&self, argument: &str) -> bool {
        match self {
            Self::Integer { min, max } => argument.parse::<i64>().is_ok_and(|number| {
                (min..=max).contains(&&number) && number.to_string() == argument
            }),
            Self::Enum(_) | Self::Pattern { .. } | Self::Path { .. } => {
                self.check(argument).is_ok()
            }
        }
    }

    fn check(&self, text: &str) -> Result<(), Refused> {
        if text.len() > VALUE_BYTES {
            return refused(
                code::TOO_LONG,
                format!("must have at most {VALUE_BYTES} bytes"),
            );
        }
        match self {
            Self::Integer { min, max } => refused(code::WRONG_TYPE, integers(*min, *max)),
            Self::Enum(values) if values.iter().any(|value| value == text) => Ok(()),
            Self::Enum(values) => refused(
                code::INVALID_VALUE,
                format!("must be one of: {}", values.join(", ")),
            ),
            // No value may turn into an option of the program.
            Self::Pattern { whole, .. } if whole.is_match(text) && !text.starts_with('-') => Ok(()),
            Self::Pattern { shown, .. } => refused(
                code::INVALID_VALUE,
                format!("must match {shown} as a whole, and not begin with -"),
            ),
            Self::Path { beneath } => is_beneath(beneath, text),
        }
    }
}

fn integers(min: i64, max: i64) -> String {
    format!("must be an integer from {min} to {max}")
}

/// Is this a relative path that goes nowhere but down?
fn is_plain(path: &str) -> bool {
    path.split('/')
        .all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
}

/// By its text, and by where the part of it that exists really is. What happens to that part before the job
/// opens it is up to whoever may write there.
fn is_beneath(root: &Path, text: &str) -> Result<(), Refused> {
    let below = root
        .to_str()
        .and_then(|root| text.strip_prefix(root))
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(is_plain);
    if !below {
        return refused(
            code::INVALID_VALUE,
            format!("must be a path beneath {} without . and ..", root.display()),
        );
    }
    let existing = Path::new(text)
        .ancestors()
        .find(|path| fs::symlink_metadata(path).is_ok());
    let real = existing.and_then(|path| fs::canonicalize(path).ok());
    let stays = fs::canonicalize(root)
        .ok()
        .zip(real)
        .is_some_and(|(root, real)| real.starts_with(root));
    if stays {
        Ok(())
    } else {
        refused(
            code::INVALID_VALUE,
            format!("must stay beneath {} where links lead", root.display()),
        )
    }
}
