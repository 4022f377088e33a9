//! What the service will run out of, and what is not as it needs it: disk, descriptors, clock, kernel, files, backup.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

use super::{Say, Verdict};
use crate::config::Config;
use crate::limits;
use linux::{beneath, clock};

/// Fewer free inodes than this are few: a running job has a directory with some files.
const FEW_INODES: u64 = 10_000;

/// How long files of jobs are counted.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// A backup that is older is too old.
const BACKUP_DAYS: u64 = 7;

/// The oldest kernel that the service is made for (`openat2`, pidfds), and the first one with everything that
/// containment uses (`cgroup.kill`).
const OLDEST_KERNEL: (u32, u32) = (5, 10);
const KERNEL: (u32, u32) = (5, 14);

/// What was read of it; `None` is what could not be read.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Free bytes where the state is.
    free_bytes: Option<u64>,
    /// Free inodes there; `None` also if there is no such number.
    free_inodes: Option<u64>,
    /// How many open files a process of the service may have, and whether the service runs and said so itself.
    open_files: Option<(u64, bool)>,
    /// The kernel knows of a clock that it follows.
    is_clock_synchronised: Option<bool>,
    /// How far in the future the store was last written.
    ahead: Option<Duration>,
    kernel: String,
    /// Files of the state directory that belong to somebody else than the directory does.
    foreign: Vec<PathBuf>,
    /// Files that others can read.
    open: Vec<PathBuf>,
    /// How many jobs have files of their own, and what those take on disk, if it could be counted.
    workspaces: Option<Workspaces>,
    /// The age of the backup that was named.
    backup: Option<Result<Duration, String>>,
}

/// What all workspaces take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Workspaces {
    jobs: usize,
    bytes: u64,
    /// There may be more: counting took too long.
    is_cut: bool,
}

impl Health {
    pub(super) fn look(
        config: &Config,
        service: Option<i32>,
        backup: Option<Result<Duration, String>>,
    ) -> Self {
        let present = config.state_dir.ancestors().find(|path| path.exists());
        let disk = present.and_then(|path| statvfs(path).ok());
        let kernel = uname().map_or_else(
            |_| String::new(),
            |name| name.release().to_string_lossy().into_owned(),
        );
        let (foreign, open) = files(&config.state_dir);
        Self {
            free_bytes: disk.map(|disk| disk.blocks_available() * disk.fragment_size()),
            // Some file systems have no fixed number.
            free_inodes: disk
                .filter(|disk| disk.files() > 0)
                .map(|disk| disk.files_available()),
            open_files: service
                .and_then(limit_of)
                .map(|limit| (limit, true))
                .or_else(|| {
                    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
                    Some((hard, false))
                }),
            is_clock_synchronised: clock::is_synchronised(),
            ahead: ahead(&config.state_dir),
            kernel,
            foreign,
            open,
            workspaces: workspaces(&config.workspaces_dir),
            backup,
        }
    }
}

/// How many files the process may have open (proc_pid_limits(5)).
fn limit_of(pid: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn ahead(state_dir: &Path) -> Option<Duration> {
    let names = ["procession.db", "procession.db-wal", "audit.jsonl"];
    let written = names.iter().filter_map(|name| {
        let found = fs::symlink_metadata(state_dir.join(name)).ok()?;
        found.modified().ok()
    });
    written.max()?.duration_since(SystemTime::now()).ok()
}

/// The files directly in the state directory that belong to another user than it does, and those that others can read.
fn files(state_dir: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut foreign, mut open) = (Vec::new(), Vec::new());
    let Ok(owner) = fs::symlink_metadata(state_dir).map(|found| found.uid()) else {
        return (foreign, open);
    };
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else {
            continue;
        };
        if found.uid() != owner {
            foreign.push(entry.path());
        }
        if found.is_file() && found.mode() & 0o077 != 0 {
            open.push(entry.path());
        }
    }
    foreign.sort();
    open.sort();
    (foreign, open)
}

/// Counts what is in this directory; nothing if it cannot be read, or is not there.
fn workspaces(directory: &Path) -> Option<Workspaces> {
    let opened = fs::File::open(directory).ok()?;
    let limits = beneath::Limits {
        time: COUNTED_FOR,
        ..beneath::Limits::default()
    };
    let is_job = |path: &str| !path.contains('/') && !path.starts_with('.');
    let (mut jobs, mut bytes) = (0, 0);
    let mut walk = beneath::walk(opened.as_fd(), "", limits);
    for entry in &mut walk {
        jobs += usize::from(is_job(&entry.path));
        bytes += entry.disk_bytes;
    }
    Some(Workspaces {
        jobs,
        bytes,
        is_cut: walk.is_truncated(),
    })
}

/// How long ago this was written.
pub(super) fn age(path: &Path) -> Result<Duration, String> {
    let written = fs::metadata(path).and_then(|found| found.modified());
    let written = written.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(SystemTime::now()
        .duration_since(written)
        .unwrap_or_default())
}

/// Says what there is to say of it. PURE.
pub(super) fn examine(config: &Config, health: &Health, say: &mut Say<'_>) {
    room(config, health, say);
    if let Some(found) = health.workspaces {
        files_of_jobs(config, found, say);
    }
    descriptors(config, health, say);
    time(health, say);
    kernel(&health.kernel, say);
    for path in &health.foreign {
        say(
            "files",
            Verdict::Problem,
            format!(
                "{} belongs to another user than its directory; the service cannot use it: run chown on it",
                path.display()
            ),
        );
    }
    for path in &health.open {
        say(
            "files",
            Verdict::Insecure,
            format!("others can read {}; run chmod 600 on it", path.display()),
        );
    }
    match &health.backup {
        None => {}
        Some(Err(why)) => say("backup", Verdict::Problem, why.clone()),
        Some(Ok(age)) => {
            let (days, hours) = (age.as_secs() / 86_400, age.as_secs() / 3600 % 24);
            let verdict = if days < BACKUP_DAYS {
                Verdict::Good
            } else {
                Verdict::Problem
            };
            say(
                "backup",
                verdict,
                format!("{days} days and {hours} hours old"),
            );
        }
    }
}

fn room(config: &Config, health: &Health, say: &mut Say<'_>) {
    if let Some(free) = health.free_bytes {
        let (least, mib) = (config.min_free_bytes, free >> 20);
        let (verdict, text) = if free < least {
            (
                Verdict::Problem,
                format!("{mib} MiB free, less than --min-free-bytes: jobs are refused"),
            )
        } else if free / 2 < least {
            (
                Verdict::Note,
                format!("{mib} MiB free; below {} MiB jobs are refused", least >> 20),
            )
        } else {
            (Verdict::Good, format!("{mib} MiB free"))
        };
        say("disk", verdict, text);
    }
    match health.free_inodes {
        None => {}
        Some(0) => say("inodes", Verdict::Problem, "none free".to_owned()),
        Some(free) if free < FEW_INODES => {
            say(
                "inodes",
                Verdict::Note,
                format!("{free} free, which is few"),
            );
        }
        Some(free) => say("inodes", Verdict::Good, format!("{free} free")),
    }
}

fn files_of_jobs(config: &Config, found: Workspaces, say: &mut Say<'_>) {
    let Workspaces {
        jobs,
        bytes,
        is_cut,
    } = found;
    let (mib, most) = (bytes >> 20, config.max_workspaces_bytes);
    let at_least = if is_cut { "at least " } else { "" };
    let text = format!("{jobs} jobs have files of their own: {at_least}{mib} MiB");
    let (verdict, more) = if most == u64::MAX {
        (Verdict::Good, String::new())
    } else if bytes >= most {
        let why = "the most that --max-workspaces-bytes allows: jobs with files are refused";
        (Verdict::Problem, format!(", {why}"))
    } else {
        (Verdict::Good, format!(" of {} MiB", most >> 20))
    };
    say("workspaces", verdict, format!("{text}{more}"));
}

fn descriptors(config: &Config, health: &Health, say: &mut Say<'_>) {
    let Some((limit, is_service)) = health.open_files else {
        return;
    };
    let wanted = limits::recommended(config.max_running, config.max_connections);
    let whose = if is_service {
        "the service"
    } else {
        "this shell"
    };
    let (verdict, enough) = if limit < wanted {
        (Verdict::Note, "; raise it (LimitNOFILE= of a unit)")
    } else {
        (Verdict::Good, "")
    };
    say(
        "descriptors",
        verdict,
        format!(
            "{whose} may open {limit} files, --max-running and --max-connections take up to {wanted}{enough}"
        ),
    );
}

fn time(health: &Health, say: &mut Say<'_>) {
    match health.ahead.filter(|ahead| ahead.as_secs() > 1) {
        Some(ahead) => say(
            "clock",
            Verdict::Problem,
            format!(
                "the store was written {} s in the future: the clock went back",
                ahead.as_secs()
            ),
        ),
        None => match health.is_clock_synchronised {
            Some(true) => say("clock", Verdict::Good, "synchronised".to_owned()),
            Some(false) => say(
                "clock",
                Verdict::Note,
                "not synchronised: timestamps and expiries are as good as it is".to_owned(),
            ),
            None => {}
        },
    }
}

fn kernel(release: &str, say: &mut Say<'_>) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (number(), number()) else {
        return;
    };
    let (verdict, text) = if (major, minor) < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        (
            Verdict::Problem,
            format!("Linux {release}: older than {major}.{minor}, the oldest that is supported"),
        )
    } else if (major, minor) < KERNEL {
        let (major, minor) = KERNEL;
        (
            Verdict::Note,
            format!("Linux {release}: cgroups contain jobs from {major}.{minor} on"),
        )
    } else {
        (Verdict::Good, format!("Linux {release}"))
    };
    say("kernel", verdict, text);
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, testing};
    use super::*;

    fn verdicts(health: &Health) -> Vec<(&'static str, Verdict)> {
        let config = testing::config(&["--config="]);
        let findings = Finding::collect(|say| examine(&config, health, say));
        findings.iter().map(|it| (it.about, it.verdict)).collect()
    }

    #[test]
    fn what_runs_out_is_a_problem_before_jobs_are_refused_a_note() {
        let disk = |free| Health {
            free_bytes: Some(free),
            ..Health::default()
        };
        assert_eq!(verdicts(&disk(1 << 20)), [("disk", Verdict::Problem)]);
        assert_eq!(verdicts(&disk(3 << 29)), [("disk", Verdict::Note)]);
        assert_eq!(verdicts(&disk(3 << 30)), [("disk", Verdict::Good)]);
        let inodes = |free| Health {
            free_inodes: Some(free),
            ..Health::default()
        };
        assert_eq!(verdicts(&inodes(0)), [("inodes", Verdict::Problem)]);
        assert_eq!(verdicts(&inodes(9)), [("inodes", Verdict::Note)]);
        let files = |limit| Health {
            open_files: Some((limit, true)),
            ..Health::default()
        };
        assert_eq!(verdicts(&files(1024)), [("descriptors", Verdict::Note)]);
        assert_eq!(verdicts(&files(65536)), [("descriptors", Verdict::Good)]);
    }

    #[test]
    fn what_jobs_keep_is_counted_and_a_problem_when_no_more_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(workspaces(&folder.path().join("none")), None);
        for job in ["a", "b", ".trash"] {
            fs::create_dir_all(folder.path().join(job).join("in")).unwrap();
            fs::write(folder.path().join(job).join("in/x"), vec![7; 1 << 20]).unwrap();
        }
        let found = workspaces(folder.path()).unwrap();
        assert_eq!((found.jobs, found.bytes >> 20, found.is_cut), (2, 3, false));
        let said = |flags: &[&str]| {
            let config = testing::config(flags);
            let health = Health {
                workspaces: Some(found),
                ..Health::default()
            };
            let mut findings = Finding::collect(|say| examine(&config, &health, say));
            let one = findings.remove(0);
            (one.about, one.verdict, one.text)
        };
        let text = "2 jobs have files of their own: 3 MiB".to_owned();
        assert_eq!(said(&["--config="]), ("workspaces", Verdict::Good, text));
        let (_, verdict, text) = said(&["--config=", "--max-workspaces-bytes=1048576"]);
        assert_eq!(verdict, Verdict::Problem, "{text}");
        let (_, verdict, text) = said(&["--config=", "--max-workspaces-bytes=1073741824"]);
        assert!(
            verdict == Verdict::Good && text.ends_with("3 MiB of 1024 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_clock_that_went_back_an_old_kernel_and_an_old_backup_are_found() {
        let back = Health {
            ahead: Some(Duration::from_secs(90)),
            is_clock_synchronised: Some(true),
            ..Health::default()
        };
        assert_eq!(verdicts(&back), [("clock", Verdict::Problem)]);
        for (release, verdict) in [
            ("4.19.0-27-amd64", Verdict::Problem),
            ("5.10.0-28-amd64", Verdict::Note),
            ("6.1.0", Verdict::Good),
        ] {
            let health = Health {
                kernel: release.to_owned(),
                ..Health::default()
            };
            assert_eq!(verdicts(&health), [("kernel", verdict)]);
        }
        let (major, minor) = OLDEST_KERNEL;
        let named = format!("For Linux {major}.{minor} or newer");
        assert!(
            include_str!("../../../README.md").contains(&named),
            "{named}"
        );
        let backup = |age| Health {
            backup: Some(age),
            ..Health::default()
        };
        let day = Duration::from_secs(86_400);
        assert_eq!(verdicts(&backup(Ok(day))), [("backup", Verdict::Good)]);
        assert_eq!(
            verdicts(&backup(Ok(day * 8))),
            [("backup", Verdict::Problem)]
        );
        assert_eq!(
            verdicts(&backup(Err("missing".to_owned()))),
            [("backup", Verdict::Problem)]
        );
    }
}
