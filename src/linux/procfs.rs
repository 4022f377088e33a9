//! Reading `/proc`: process identities, trees and boot id. It only reads; who is signalled is decided elsewhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::sys::Pid;

/// The fields of proc_pid_stat(5) that are used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    pub name: String,
    pub state: char,
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// The device number of its controlling terminal.
    pub terminal: Option<u64>,
    /// Clock ticks in user mode.
    pub user_ticks: u64,
    /// Clock ticks in the kernel.
    pub system_ticks: u64,
    /// Start time in clock ticks since boot: with the boot id and the PID it names one process for ever.
    pub start_ticks: u64,
    /// Resident set in pages.
    pub rss_pages: u64,
    /// Threads.
    pub threads: u64,
    /// What its children that it has waited for had used, and theirs, in user mode and in the kernel.
    pub waited_for_ticks: (u64, u64),
}

impl Stat {
    /// The thread-group leader has ended. Other threads of it may still run: trust waitid(2) for the end.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A process by number and start time: with the boot id, one process for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    pub start_ticks: u64,
}

/// More than most of them hold.
const SMALL: usize = 1024;

/// A small file that the kernel writes as it is read: one read gives all of it. A process's name in it may
/// be no text, not least since the kernel cuts names within a character.
pub fn read_small(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; SMALL];
    let length = file.read(&mut bytes)?;
    bytes.truncate(length);
    if length == SMALL {
        file.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads one process's stat; an error if it is gone.
pub fn stat(pid: i32) -> io::Result<Stat> {
    parse_stat(&read_small(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The calling process's own stat.
pub fn own_stat() -> io::Result<Stat> {
    parse_stat(&read_small("/proc/self/stat")?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The calling process's own OOM score adjustment (`proc_pid_oom_score_adj(5)`).
pub fn own_oom_score_adj() -> Option<i32> {
    let text = read_small("/proc/self/oom_score_adj").ok()?;
    text.trim().parse().ok()
}

/// When a process started, in clock ticks since the boot, by its stat; allocates nothing.
pub fn start_ticks(stat: &[u8]) -> Option<u64> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(stat.get(close + 1..)?).ok()?;
    // Field 3 is the first after the name; this is field 22.
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may itself hold parentheses and spaces: the last one closes it.
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let pid = text.get(..open)?.trim().parse().ok()?;
    let name = text.get(open + 1..close)?.to_owned();
    let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
    // Field 3 of the manual page is the first after the name.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        pid,
        name,
        state: field(3)?.chars().next()?,
        ppid: field(4)?.parse().ok()?,
        pgid: field(5)?.parse().ok()?,
        sid: field(6)?.parse().ok()?,
        terminal: field(7)?.parse().ok().filter(|device| *device > 0),
        user_ticks: field(14)?.parse().ok()?,
        system_ticks: field(15)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
        rss_pages: field(24)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        waited_for_ticks: (field(16)?.parse().ok()?, field(17)?.parse().ok()?),
    })
}

/// The kernel tells a process's children (CONFIG_PROC_CHILDREN, see proc_pid_task(5)).
fn kernel_tells_children() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| fs::exists("/proc/thread-self/children").unwrap_or(false))
}

/// The direct children of a process: of all its threads, since a child belongs to the thread that made it.
fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_ascii_whitespace()
                .filter_map(|word| word.parse::<i32>().ok()),
        );
    }
    Ok(found)
}

/// The direct children of a process, zombies included.
pub fn children_of(parent: i32) -> Vec<Stat> {
    if !kernel_tells_children() {
        let mut all = all_processes().unwrap_or_default();
        all.retain(|stat| stat.ppid == parent);
        return all;
    }
    let children = children(parent).unwrap_or_default();
    children
        .into_iter()
        .filter_map(|child| stat(child).ok())
        .collect()
}

/// Every process that can be seen.
pub fn all_processes() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry.ok().and_then(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        }) else {
            continue;
        };
        found.extend(stat(pid));
    }
    Ok(found)
}

/// Every process beneath `root`, nearest first, zombies included, `root` itself not.
///
/// A tree that forks while it is read can hide a member; a caller that must have all stops what it has
/// found and looks again until nothing new appears.
pub fn descendants(root: i32) -> Vec<Stat> {
    if !kernel_tells_children() {
        return descendants_among(root, all_processes().unwrap_or_default());
    }
    let mut found: Vec<Stat> = Vec::new();
    let mut known = HashSet::new();
    let mut open = VecDeque::from([root]);
    while let Some(parent) = open.pop_front() {
        for child in children(parent).unwrap_or_default() {
            let Ok(stat) = stat(child) else { continue };
            if stat.ppid == parent && known.insert(child) {
                open.push_back(child);
                found.push(stat);
            }
        }
    }
    found
}

fn descendants_among(root: i32, all: Vec<Stat>) -> Vec<Stat> {
    let mut by_parent: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all {
        by_parent.entry(stat.ppid).or_default().push(stat);
    }
    let mut found = by_parent.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|stat| stat.pid) {
        found.extend(by_parent.remove(&parent).unwrap_or_default());
        next += 1;
    }
    found
}

/// The effective uid of a process.
pub fn euid(pid: i32) -> Option<u32> {
    nth_uid(pid, 1)
}

/// The real uid of a process: whoever has it may signal the process (kill(2)).
pub fn real_uid(pid: i32) -> Option<u32> {
    nth_uid(pid, 0)
}

fn nth_uid(pid: i32, nth: usize) -> Option<u32> {
    let status = read_small(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(nth)?.parse().ok()
}

/// Bytes that a process has had read from and written to disks; `None` if this process may not know.
pub fn disk_bytes(pid: i32) -> Option<(u64, u64)> {
    let io = read_small(format!("/proc/{pid}/io")).ok()?;
    let of = |name: &str| -> Option<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some((of("read_bytes:")?, of("write_bytes:")?))
}

/// The arguments of a process; empty for a zombie or a kernel thread.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    if words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
}

/// Can the process write into one of these pipes? False if its descriptors cannot be read. Who can
/// only read from one is a monitor, or has just been forked from the supervisor, which reads too.
pub fn writes_to_pipe(pid: i32, inodes: &[u64]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let names: Vec<String> = inodes
        .iter()
        .map(|inode| format!("pipe:[{inode}]"))
        .collect();
    entries
        .flatten()
        .map(|entry| entry.path())
        // The link's mode says how the descriptor was opened (proc_pid_fd(5)).
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|link| link.mode() & 0o200 != 0))
        .filter_map(|path| fs::read_link(path).ok())
        .any(|target| names.iter().any(|name| target.as_os_str() == name.as_str()))
}

/// Has the process this device open? False if its descriptors cannot be read.
pub fn has_device_open(pid: i32, device: u64) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|file| file.rdev() == device)
}

/// Was this assignment in the environment that the process was started with? False if that cannot be read.
pub fn was_started_with(pid: i32, assignment: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|one| one == assignment.as_bytes())
    })
}

/// The random id of the present boot of the machine.
pub fn boot_id() -> io::Result<String> {
    // A test cannot restart the machine.
    #[cfg(debug_assertions)]
    if let Ok(pretended) = std::env::var("PROCESSION_BOOT_ID") {
        return Ok(pretended);
    }
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Does `/proc` show this process, and all that is read there? Else why not, and what to do.
pub fn check() -> Result<(), String> {
    let me = std::process::id().to_string();
    match fs::read_link("/proc/self") {
        Ok(named) if named.as_os_str() == me.as_str() => {}
        named => {
            let named = named.map_or("nobody".to_owned(), |named| named.display().to_string());
            return Err(format!(
                "/proc is of another PID namespace (this process is {me}, and {named} there): mount it anew (mount -t proc proc /proc, unshare --mount-proc)"
            ));
        }
    }
    boot_id().map(drop).map_err(|error| {
        format!(
            "cannot read /proc/sys/kernel/random/boot_id ({error}): mount /proc without subset=pid"
        )
    })
}

/// Is this still the process that had this number and this start time?
pub fn is_same_process(pid: Pid, start_ticks: u64) -> bool {
    stat(pid.as_i32()).is_ok_and(|stat| stat.start_ticks == start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let line = "42 (a) R (b c)) S 1 2 3 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 777 1000 9 18446744073709551615 1";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            (stat.pid, stat.name.as_str(), stat.state),
            (42, "a) R (b c)", 'S')
        );
        assert_eq!((stat.ppid, stat.pgid, stat.sid), (1, 2, 3));
        assert_eq!(stat.terminal, None);
        assert_eq!(
            (
                stat.user_ticks,
                stat.system_ticks,
                stat.start_ticks,
                stat.rss_pages
            ),
            (5, 6, 777, 9)
        );
    }

    #[test]
    fn a_child_is_found_beneath_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let me = own_stat().unwrap().pid;
        let id = i32::try_from(child.id()).unwrap();
        let below = descendants(me);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(below.iter().any(|stat| stat.pid == id));
    }
}
