//! A job's sandbox: as a client asks for it, as the service insists on it, and as it came into force.
//!
//! PURE. What the kernel can do is told to it; how it is done is in `linux::sandbox`.

use serde::{Deserialize, Serialize};

use crate::Spec;

/// Whether one of the two mechanisms is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// With the rules that every sandbox has.
    #[default]
    Default,
    /// Not at all.
    Off,
}

/// What a job is kept from, beyond what its user may not do anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Rules for files and signals: the state directory is closed, and no process outside the job can be
    /// signalled or traced.
    pub landlock: Mechanism,
    /// A filter for system calls that ordinary programs do not make.
    pub seccomp: Mechanism,
    /// Only these and what is beneath them can be changed; `None`: whatever can be read.
    pub writable_paths: Option<Vec<String>>,
    /// Only these, the writable ones, and what is beneath can be read and executed; `None`: everything.
    pub readable_paths: Option<Vec<String>>,
    /// Rather not run at all than with a part of this missing.
    pub require: bool,
}

impl Sandbox {
    /// It keeps the job from nothing.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.landlock == Mechanism::Off && self.seccomp == Mechanism::Off
    }

    /// The parts of it that a kernel with these features lacks.
    #[must_use]
    pub fn missing(&self, features: Features) -> Vec<Part> {
        let mut missing = Vec::new();
        if self.landlock == Mechanism::Default {
            match features.landlock_abi {
                None => missing.push(Part::Landlock),
                Some(abi) => {
                    if abi < 3 {
                        missing.push(Part::LandlockTruncate);
                    }
                    if abi < 6 {
                        missing.push(Part::LandlockSignal);
                    }
                }
            }
        }
        if self.seccomp == Mechanism::Default && !features.seccomp {
            missing.push(Part::Seccomp);
        }
        missing
    }
}

/// What the running kernel can confine a process with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The version of Landlock's interface (landlock(7)); `None` if there is none, or it may not be used.
    pub landlock_abi: Option<u32>,
    /// Filters for system calls that can make them fail.
    pub seccomp: bool,
}

/// A part of a sandbox that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All of Landlock.
    Landlock,
    /// Files that cannot be written can still be cut off (before Linux 6.2).
    LandlockTruncate,
    /// Processes outside the job can still be signalled (before Linux 6.12).
    LandlockSignal,
    /// The filter for system calls.
    Seccomp,
}

impl Part {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::LandlockTruncate => "landlock_truncate",
            Self::LandlockSignal => "landlock_signal",
            Self::Seccomp => "seccomp",
        }
    }
}

/// What is in force for the processes of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The version of Landlock's interface; `None` if Landlock is not used.
    pub landlock_abi: Option<u32>,
    /// The filter for system calls is in place.
    pub seccomp: bool,
    /// What was asked for, and this kernel does not have.
    pub missing: Vec<Part>,
}

/// What the service does about sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// A job gets what it asks for.
    #[default]
    Off,
    /// A job that says nothing gets the default sandbox.
    Default,
    /// Every job gets at least that, and does not run where the kernel lacks a part of it.
    Require,
}

/// Why a spec cannot have the sandbox that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It asks for less than the service insists on, in this field.
    TooLittle(&'static str),
    /// It would get the default sandbox, which `no_new_privs: false` excludes.
    NewPrivs,
}

impl Baseline {
    /// The word in the settings and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Default => "default",
            Self::Require => "require",
        }
    }

    /// The sandbox of a job with this spec; `None` for no sandbox.
    pub fn apply(self, spec: &Spec) -> Result<Option<Sandbox>, Refused> {
        let asked = spec.sandbox.as_ref();
        let sandbox = match (self, asked) {
            (Self::Off, None) => return Ok(None),
            (Self::Off | Self::Default, Some(asked)) => asked.clone(),
            (Self::Default, None) => Sandbox::default(),
            (Self::Require, asked) => {
                let asked = asked.cloned().unwrap_or_default();
                if asked.landlock == Mechanism::Off {
                    return Err(Refused::TooLittle("/sandbox/landlock"));
                }
                if asked.seccomp == Mechanism::Off {
                    return Err(Refused::TooLittle("/sandbox/seccomp"));
                }
                if !spec.no_new_privs {
                    return Err(Refused::TooLittle("/no_new_privs"));
                }
                Sandbox {
                    require: true,
                    ..asked
                }
            }
        };
        if sandbox.is_off() {
            return Ok(None);
        }
        if !spec.no_new_privs {
            return Err(Refused::NewPrivs);
        }
        Ok(Some(sandbox))
    }
}

/// The sandbox of a job, and what it is to be kept from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    pub sandbox: Sandbox,
    /// The state directory.
    pub hidden: String,
    /// The part of it where jobs work, or the directory that is the job's own.
    pub work_dir: String,
    /// The directory of the jobs' own directories, of which a job sees no other than its own.
    #[serde(default)]
    pub workspaces: Option<String>,
    /// The work directory is the job's own: it may write there, wherever else it may not.
    #[serde(default)]
    pub owns_work_dir: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(sandbox: Option<Sandbox>, no_new_privs: bool) -> Spec {
        Spec {
            sandbox,
            no_new_privs,
            ..Spec::default()
        }
    }

    const OFF: Sandbox = Sandbox {
        landlock: Mechanism::Off,
        seccomp: Mechanism::Off,
        writable_paths: None,
        readable_paths: None,
        require: false,
    };

    #[test]
    fn a_job_gets_what_it_asks_for_or_else_what_the_service_gives() {
        let asked = Sandbox {
            seccomp: Mechanism::Off,
            ..Sandbox::default()
        };
        assert_eq!(Baseline::Off.apply(&spec(None, true)), Ok(None));
        assert_eq!(Baseline::Off.apply(&spec(None, false)), Ok(None));
        assert_eq!(
            Baseline::Default.apply(&spec(None, true)),
            Ok(Some(Sandbox::default()))
        );
        for baseline in [Baseline::Off, Baseline::Default] {
            let with = |sandbox| baseline.apply(&spec(Some(sandbox), true));
            assert_eq!(with(asked.clone()), Ok(Some(asked.clone())));
            assert_eq!(with(OFF), Ok(None));
            assert_eq!(baseline.apply(&spec(Some(OFF), false)), Ok(None));
        }
        assert_eq!(
            Baseline::Default.apply(&spec(None, false)),
            Err(Refused::NewPrivs)
        );
    }

    #[test]
    fn below_what_the_service_requires_nothing_is_possible() {
        let require = |sandbox, no_new_privs| Baseline::Require.apply(&spec(sandbox, no_new_privs));
        let strict = Sandbox {
            writable_paths: Some(vec![]),
            ..Sandbox::default()
        };
        assert!(require(None, true).unwrap().unwrap().require);
        let given = require(Some(strict.clone()), true).unwrap().unwrap();
        assert_eq!(
            (given.require, given.writable_paths),
            (true, strict.writable_paths)
        );
        let refused = |field| Err(Refused::TooLittle(field));
        assert_eq!(require(Some(OFF), true), refused("/sandbox/landlock"));
        let half = Sandbox {
            landlock: Mechanism::Default,
            ..OFF
        };
        assert_eq!(require(Some(half), true), refused("/sandbox/seccomp"));
        assert_eq!(require(None, false), refused("/no_new_privs"));
    }

    #[test]
    fn what_a_kernel_lacks_is_named_where_it_was_wanted() {
        let missing = |sandbox: &Sandbox, landlock_abi, seccomp| {
            sandbox.missing(Features {
                landlock_abi,
                seccomp,
            })
        };
        let both = Sandbox::default();
        assert_eq!(missing(&both, Some(6), true), []);
        assert_eq!(missing(&both, None, false), [Part::Landlock, Part::Seccomp]);
        assert_eq!(
            missing(&both, Some(1), true),
            [Part::LandlockTruncate, Part::LandlockSignal]
        );
        assert_eq!(missing(&both, Some(3), true), [Part::LandlockSignal]);
        assert_eq!(missing(&OFF, None, false), []);
    }
}
