//! waitid(2): how children end.

use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};

use super::Pid;

/// Which children to wait for.
#[derive(Clone, Copy, Debug)]
pub enum WaitTarget {
    Any,
    Child(Pid),
}

/// How a child ended, as waitid(2) says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    pub pid: Pid,
    pub end: End,
    /// Its own, and that of the children which it has waited for.
    pub usage: Usage,
}

/// What processes have used, as getrusage(2) counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Of the largest of them.
    pub max_rss_bytes: u64,
}

impl Usage {
    /// That of these and of those, as the kernel adds up a process's children.
    pub fn and(self, other: Self) -> Self {
        Self {
            user: self.user.saturating_add(other.user),
            system: self.system.saturating_add(other.system),
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
        }
    }

    fn read(usage: &libc::rusage) -> Self {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let duration = |time: libc::timeval| {
            Duration::from_secs(unsigned(time.tv_sec))
                .saturating_add(Duration::from_micros(unsigned(time.tv_usec)))
        };
        Self {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            // Linux counts it in kibibytes.
            max_rss_bytes: unsigned(usage.ru_maxrss).saturating_mul(1024),
        }
    }
}

/// What the children of this process have used that it has waited for, and theirs.
pub fn used_by_children() -> Usage {
    let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Usage::default();
    };
    Usage::read(used.as_ref())
}

/// By code or by signal; real-time signals included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(u8),
    Signal { number: i32, core_dumped: bool },
}

/// Looks, without blocking, for a child that has ended. With `reap` its number is free afterwards.
/// `Ok(None)`: no child has ended. `Err(ECHILD)`: there is no child at all.
///
/// A child that has asked to be traced by its parent (ptrace(2) `PTRACE_TRACEME`) stops, which waitid(2) reports like
/// an end. It is let go of instead: nobody here traces.
pub fn wait(target: WaitTarget, reap: bool) -> nix::Result<Option<Waited>> {
    loop {
        let keep = if reap { 0 } else { libc::WNOWAIT };
        let Some((info, usage)) = waitid(target, libc::WEXITED | keep)? else {
            return Ok(None);
        };
        let end = match info.code {
            libc::CLD_EXITED => End::Code(u8::try_from(info.status & 0xff).unwrap_or(u8::MAX)),
            libc::CLD_KILLED | libc::CLD_DUMPED => End::Signal {
                number: info.status,
                core_dumped: info.code == libc::CLD_DUMPED,
            },
            _ => {
                stop_tracing(info.pid, info.status);
                continue;
            }
        };
        return Ok(Some(Waited {
            pid: info.pid,
            end,
            usage,
        }));
    }
}

/// A child that was stopped by a signal since this was asked last; `None`: none.
pub fn stopped_child(target: WaitTarget) -> Option<Pid> {
    let found = waitid(target, libc::WSTOPPED).ok()??;
    Some(found.0.pid)
}

/// What waitid(2) says of a child.
struct ChildInfo {
    pid: Pid,
    code: i32,
    status: i32,
}

fn waitid(target: WaitTarget, what: i32) -> nix::Result<Option<(ChildInfo, Usage)>> {
    let (kind, id) = match target {
        WaitTarget::Any => (libc::P_ALL, 0),
        WaitTarget::Child(pid) => (
            libc::P_PID,
            libc::id_t::try_from(pid.0).map_err(|_| Errno::EINVAL)?,
        ),
    };
    // SAFETY: a zeroed siginfo_t is a valid value of that plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: a zeroed rusage is a valid value of that plain C structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `info` and `usage` are writable for the whole call. The system call has an argument more than the C
    // library's function: what the child has used.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_waitid,
            kind,
            id,
            &raw mut info,
            what | libc::WNOHANG,
            &raw mut usage,
        )
    })?;
    // SAFETY: waitid has filled in the SIGCHLD fields, or left the zeroes.
    let pid = unsafe { info.si_pid() };
    let Some(pid) = Pid::new(pid) else {
        return Ok(None);
    };
    // SAFETY: as above; si_status is set whenever si_pid is.
    let status = unsafe { info.si_status() };
    let code = info.si_code;
    Ok(Some((ChildInfo { pid, code, status }, Usage::read(&usage))))
}

/// Lets go of a thread that has made this process its tracer and has stopped; it gets the signal for which it did.
fn stop_tracing(pid: Pid, signal: i32) {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: a zeroed siginfo_t is a valid value of that plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one siginfo_t, and `info` is one.
    let asked = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, pid.0, nothing, &raw mut info) };
    // The word that execve(2) has worked, which the kernel sends in the program's own name, is for a tracer alone.
    let is_exec = asked == 0 && signal == libc::SIGTRAP && info.si_code == libc::SI_USER;
    let delivered = libc::c_long::from(if is_exec { 0 } else { signal });
    // SAFETY: the request takes two integers.
    let gone = unsafe { libc::ptrace(libc::PTRACE_DETACH, pid.0, nothing, delivered) };
    if gone != 0 {
        // It was killed meanwhile; should it be anything else, this stop is at least not reported again.
        let _ = waitid(WaitTarget::Child(pid), libc::WSTOPPED);
    }
}
