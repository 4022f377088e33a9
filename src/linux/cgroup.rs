//! cgroup v2 (cgroups(7)): a home beneath the service's own cgroup, and one group per job in it.
//!
//! What is there is found out by doing, never by kernel version: v2 may be mounted without controllers
//! (kill, freeze and `populated` still work), read-only, or not at all. The roles themselves live beside
//! the jobs' groups, in `self`, since a v2 group with controllers may hold processes or groups, not both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failpoint;
use crate::procfs;
use job::spec::Limits;

/// The controllers that a job can be limited by.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Where the jobs' groups are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    mount: PathBuf,
    /// Beneath the mount, without a leading slash.
    path: PathBuf,
    /// Those of the controllers that limits need, as far as they can be used.
    pub controllers: Vec<String>,
}

impl Home {
    /// Makes the home and moves the calling process (and so all that it forks) into its `self` group.
    /// The error is one sentence that says why there is none.
    pub fn set_up(instance: &str) -> Result<Self, String> {
        let mount = mount_point().ok_or("cgroup v2 is not mounted")?;
        let own =
            own_group().ok_or("this process has no cgroup v2 group that can be seen from here")?;
        // A service started from within a home (a restart in place) uses the same one.
        let base = own
            .ancestors()
            .find(|path| is_home(path))
            .and_then(Path::parent)
            .unwrap_or_else(|| unit_of(&own))
            .to_owned();
        let path = base.join(format!("procession-{instance}"));
        let directory = mount.join(&path);
        let jobs = directory.join("jobs");
        let own_directory = directory.join("self");
        for new in [&directory, &jobs, &own_directory] {
            make(new).map_err(|error| format!("cannot make {}: {error}", new.display()))?;
        }
        if fs::metadata(jobs.join("cgroup.kill")).is_err() {
            return Err("this kernel has no cgroup.kill (Linux 5.14 has)".to_owned());
        }
        fs::write(own_directory.join("cgroup.procs"), "0")
            .map_err(|error| format!("cannot move into {}: {error}", own_directory.display()))?;
        let controllers = CONTROLLERS
            .into_iter()
            .filter(|controller| {
                [&mount.join(&base), &directory, &jobs]
                    .into_iter()
                    .all(|level| enable(level, controller))
            })
            .map(str::to_owned)
            .collect();
        Ok(Self {
            mount,
            path,
            controllers,
        })
    }

    /// Where it is, beneath the mount.
    pub fn path(&self) -> String {
        format!("/{}", self.path.display())
    }

    /// Moves the calling process back out and removes the home, as far as nobody else is in it: jobs that
    /// were left running, and their monitors. Where the group above has controllers it may hold no
    /// process; then whoever delegated it removes the rest.
    pub fn leave(&self) {
        let directory = self.mount.join(&self.path);
        let above = directory.parent().unwrap_or(&self.mount);
        let _ = fs::write(above.join("cgroup.procs"), "0");
        self.sweep(|_| false);
        for empty in [
            directory.join("jobs"),
            directory.join("self"),
            directory.clone(),
        ] {
            let _ = fs::remove_dir(empty);
        }
    }

    /// Removes the groups of jobs that nothing runs in any more, but those that are to be kept.
    pub fn sweep(&self, is_kept: impl Fn(&str) -> bool) {
        let jobs = fs::read_dir(self.mount.join(&self.path).join("jobs"));
        for entry in jobs.into_iter().flatten().flatten() {
            if let Some(job) = entry.file_name().to_str()
                && !is_kept(job)
            {
                // Refused by the kernel, or not there, where a process is in it.
                let _ = self.group(job).remove();
            }
        }
    }

    /// The group of a job, whether it exists or not.
    pub fn group(&self, job: &str) -> Group {
        Group {
            directory: self.mount.join(&self.path).join("jobs").join(job),
            mount: self.mount.clone(),
        }
    }

    /// Makes a job's group and sets its limits.
    pub fn create(&self, job: &str, limits: &Limits) -> io::Result<Group> {
        let group = self.group(job);
        make(&group.directory)?;
        for (file, value) in limit_files(limits) {
            let written = fs::write(group.directory.join(file), value);
            // Swap accounting and group kills are refinements that not every kernel has.
            let refinement = file == "memory.swap.max" || file == "memory.oom.group";
            if let Err(error) = written
                && !refinement
            {
                let _ = group.remove();
                return Err(io::Error::new(error.kind(), format!("{file}: {error}")));
            }
        }
        Ok(group)
    }
}

fn limit_files(limits: &Limits) -> Vec<(&'static str, String)> {
    const PERIOD_MICROS: f64 = 100_000.0;
    let mut files = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        files.push(("memory.max", bytes.to_string()));
        // Without this a job over its limit swaps instead of being ended.
        files.push(("memory.swap.max", "0".to_owned()));
        files.push(("memory.oom.group", "1".to_owned()));
    }
    if let Some(cores) = limits.cpu {
        files.push((
            "cpu.max",
            format!(
                "{:.0} {PERIOD_MICROS:.0}",
                (cores * PERIOD_MICROS).max(1000.0)
            ),
        ));
    }
    if let Some(pids) = limits.pids {
        files.push(("pids.max", pids.to_string()));
    }
    files
}

/// The group of the systemd unit that `own` lies in, which is handed over as a whole even if its
/// processes start in a group below it (`DelegateSubgroup=`); `own` itself outside of units.
fn unit_of(own: &Path) -> &Path {
    let is_unit = |path: &&Path| {
        path.extension()
            .is_some_and(|kind| kind == "service" || kind == "scope")
    };
    own.ancestors().find(is_unit).unwrap_or(own)
}

fn is_home(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("procession-"))
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn enable(level: &Path, controller: &str) -> bool {
    let file = level.join("cgroup.subtree_control");
    let enabled = || {
        fs::read_to_string(&file)
            .is_ok_and(|text| text.split_whitespace().any(|word| word == controller))
    };
    enabled() || fs::write(&file, format!("+{controller}")).is_ok() && enabled()
}

fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // See proc_pid_mountinfo(5): the file system type follows the separator.
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        (file_system.split_whitespace().next()? == "cgroup2")
            .then(|| mount.split_whitespace().nth(4).map(PathBuf::from))?
    })
}

fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.starts_with("..")).then(|| PathBuf::from(path))
}

/// The value in a file of lines such as `user_usec 17`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    };
    text.lines().find_map(of_line)
}

/// The sum over all devices in a file of lines such as `8:0 rbytes=17 wbytes=4`.
fn sum_of(text: &str, name: &str) -> u64 {
    let of_word = |word: &str| {
        let (key, value) = word.split_once('=')?;
        (key == name).then(|| value.parse::<u64>().ok())?
    };
    text.split_whitespace()
        .filter_map(of_word)
        .fold(0, u64::saturating_add)
}

/// What the processes of a group have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupUse {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Memory that it has now, where the memory controller counts it.
    pub memory_bytes: Option<u64>,
    /// The most that it had at a time.
    pub memory_peak: Option<u64>,
    /// Read from and written to disks, where the I/O controller counts it.
    pub disk_bytes: Option<(u64, u64)>,
}

/// The group of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    directory: PathBuf,
    mount: PathBuf,
}

impl Group {
    /// The group with this path beneath the mount, as a record keeps it.
    pub fn at(path: &str) -> Option<Self> {
        let mount = mount_point()?;
        Some(Self {
            directory: mount.join(path.strip_prefix('/')?),
            mount,
        })
    }

    /// Where it is, beneath the mount.
    pub fn path(&self) -> String {
        format!(
            "/{}",
            self.directory
                .strip_prefix(&self.mount)
                .unwrap_or(&self.directory)
                .display()
        )
    }

    /// The group's directory, opened: what a process can be made in.
    pub fn open(&self) -> io::Result<fs::File> {
        failpoint::fail("cgroup.opening")?;
        fs::File::open(&self.directory)
    }

    /// The file by which a process joins the group.
    pub fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// SIGKILL to every process in it, however fast it forks (Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.kill"), "1")
    }

    /// Is any process in it, zombies aside?
    pub fn is_populated(&self) -> bool {
        procfs::read_small(self.directory.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// The processes in it and in the groups beneath it.
    pub fn members(&self) -> Vec<i32> {
        let mut members = Vec::new();
        let mut open = vec![self.directory.clone()];
        while let Some(directory) = open.pop() {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            members.extend(
                text.split_whitespace()
                    .filter_map(|word| word.parse::<i32>().ok())
                    .filter(|pid| *pid > 0),
            );
            let beneath = fs::read_dir(&directory).into_iter().flatten().flatten();
            open.extend(
                beneath
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        members
    }

    /// Has the kernel's out-of-memory killer struck in it? `None` without the memory controller.
    pub fn oom_killed(&self) -> Option<bool> {
        let events = procfs::read_small(self.directory.join("memory.events")).ok()?;
        let count = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        Some(count.trim() != "0")
    }

    /// The most memory that it has had at a time; `None` without the memory controller, and before Linux 5.19.
    pub fn memory_peak(&self) -> Option<u64> {
        self.number("memory.peak")
    }

    /// What its processes have used up to now, those that have ended included; `None` if it is gone.
    pub fn used(&self) -> Option<GroupUse> {
        let times = procfs::read_small(self.directory.join("cpu.stat")).ok()?;
        let disks = fs::read_to_string(self.directory.join("io.stat")).ok();
        Some(GroupUse {
            user: Duration::from_micros(value_of(&times, "user_usec")?),
            system: Duration::from_micros(value_of(&times, "system_usec")?),
            memory_bytes: self.number("memory.current"),
            memory_peak: self.memory_peak(),
            disk_bytes: disks.map(|disks| (sum_of(&disks, "rbytes"), sum_of(&disks, "wbytes"))),
        })
    }

    fn number(&self, file: &str) -> Option<u64> {
        let text = procfs::read_small(self.directory.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// Removes the group and those that the job made beneath it.
    pub fn remove(&self) -> io::Result<()> {
        // Nearly always it has none beneath it: EBUSY says that it has, or that a process is in it.
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            other => return other,
        }
        if let Ok(entries) = fs::read_dir(&self.directory) {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let _ = Self {
                        directory: entry.path(),
                        mount: self.mount.clone(),
                    }
                    .remove();
                }
            }
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
