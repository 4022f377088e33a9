//! The system calls that nix does not wrap, or wraps as `unsafe`: the only unsafe code of the crate.
//!
//! Only `supervisor` and `monitor` may fork, wait and signal. Each function here is one operation with a
//! safe signature; what it means is decided by its callers.
#![expect(
    unsafe_code,
    reason = "fork, exec, waitid, pidfds and adopted descriptors have no safe wrapper"
)]

pub mod child;
mod memory;
pub mod raw;
#[cfg(feature = "tokio")]
mod reactor;
mod wait;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::NixPath;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failpoint;
use job::Signal;
pub use memory::{bound_free_heap, forget_text_pages, give_back_heap, give_back_memory};
pub use wait::{End, Usage, WaitTarget, Waited, stopped_child, used_by_children, wait};

#[cfg(feature = "tokio")]
pub use reactor::watch;

/// A process id that can be signalled or waited for: never 0, 1 or negative, so that it can mean neither
/// "my own group", "everybody" nor init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(libc::pid_t);

impl Pid {
    pub fn new(pid: i32) -> Option<Self> {
        (pid > 1).then_some(Self(pid))
    }

    pub fn as_i32(self) -> i32 {
        self.0
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    Parent(Pid),
    Child,
}

/// fork(2). The calling process must have one thread: the child could not use a lock that another
/// thread held.
pub fn fork() -> nix::Result<Fork> {
    // SAFETY: supervisor and monitors have one thread each, so the child may use the heap and every lock.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok(Pid::new(pid).map_or(Fork::Child, Fork::Parent))
}

/// From linux/sched.h; the constant in libc is too narrow for it, and therefore 0.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// clone3(2) as a fork: the child has a copy of the memory.
fn clone3(flags: u64) -> nix::Result<Fork> {
    // SAFETY: a zeroed clone_args is a valid value of that plain C structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    // SAFETY: no caller asks for CLONE_VM, so this is a fork; the structure outlives the call and has that size;
    // the process has one thread, so that no lock is held by another.
    let pid = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    })?;
    let pid = i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?;
    Ok(Pid::new(pid).map_or(Fork::Child, Fork::Parent))
}

/// fork(2) whose child has the descriptors below `first` and no other (Linux 5.9). For that it shares the table
/// of this process at first: until the child has returned from here, nothing may be closed.
///
/// What the C library does around its own fork is left out, so the child must execute a program or end, and must not
/// start threads.
pub fn fork_with_fds_below(first: RawFd) -> nix::Result<Fork> {
    let first = libc::c_uint::try_from(first).map_err(|_| Errno::EBADF)?;
    let shared = u64::try_from(libc::CLONE_FILES).unwrap_or_default();
    if let parent @ Fork::Parent(_) = clone3(shared)? {
        return Ok(parent);
    }
    // SAFETY: the child uses none of the descriptors that it does not get.
    let alone = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    });
    if alone.is_err() {
        // It must not go on with a table that is somebody else's.
        exit_now(127);
    }
    Ok(Fork::Child)
}

/// execve(2); returns only where it failed.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |items: &[CString]| -> Vec<*const libc::c_char> {
        items
            .iter()
            .map(|item| item.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::last()
}

/// `_exit(2)`: ends the process without running exit handlers, which belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// The most memory that this process has had so far (getrusage(2)).
pub fn own_peak_bytes() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let kibibytes = usage
        .ok()
        .and_then(|usage| u64::try_from(usage.max_rss()).ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

/// kill(2) on one process. Safe against recycled numbers only for one's own unreaped children.
pub fn signal_process(pid: Pid, signal: Signal) -> nix::Result<()> {
    // SAFETY: kill has no memory preconditions, and a `Pid` names one ordinary process.
    Errno::result(unsafe { libc::kill(pid.0, signal.number()) }).map(drop)
}

/// kill(2) on a process group: the one place where a number is negated. The group's leader must be an
/// unreaped child, or its number may belong to somebody else by now.
pub fn signal_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    // SAFETY: kill has no memory preconditions; a `Pid` is above 1, so this is neither -1 nor our own group's 0.
    Errno::result(unsafe { libc::kill(-leader.0, signal.number()) }).map(drop)
}

/// How long a process that has become another user may take to send a signal.
const AS_USER: u16 = 1000;

/// Sends a signal as user `uid`, whose process it is for: a process that may become any user, and has started that one
/// so, may lack the right to signal it (capabilities(7) `CAP_SETUID`, `CAP_KILL`). Its child makes two system calls and
/// ends, so that it does not matter what other threads of this process hold.
pub fn signal_as(uid: u32, pid: Pid, signal: Signal) -> nix::Result<()> {
    let helper = match fork()? {
        Fork::Parent(helper) => helper,
        Fork::Child => {
            let sent = raw::become_uid(uid).and_then(|()| signal_process(pid, signal));
            exit_now(sent.map_or_else(errno_number, |()| 0));
        }
    };
    let held = pidfd_open(helper)?;
    let mut ended = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
    // Not for longer: whoever is that user may stop it.
    let _ = poll(&mut ended, PollTimeout::from(AS_USER));
    match wait(WaitTarget::Child(helper), true)? {
        Some(Waited {
            end: End::Code(0), ..
        }) => Ok(()),
        Some(Waited {
            end: End::Code(code),
            ..
        }) => Err(Errno::from_raw(code.into())),
        Some(_) | None => Err(Errno::EPERM),
    }
}

/// `pidfd_open(2)`: a handle that goes on meaning this process when its number is used again.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the system call takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    adopt_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?).ok_or(Errno::EBADF)
}

/// `pidfd_send_signal(2)`.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.number(),
            no_info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// `renameat2(2)` that replaces nothing: `EEXIST` if there is something of that name. The library has it for one C library
/// alone.
pub fn rename_new(
    (from, name): (BorrowedFd<'_>, &str),
    (to, leaf): (BorrowedFd<'_>, &str),
) -> nix::Result<()> {
    let renamed = name.with_nix_path(|name| {
        leaf.with_nix_path(|leaf| {
            // SAFETY: the descriptors are open and the names end with a zero; the call keeps none of them.
            Errno::result(unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    from.as_raw_fd(),
                    name.as_ptr(),
                    to.as_raw_fd(),
                    leaf.as_ptr(),
                    libc::RENAME_NOREPLACE,
                )
            })
        })
    });
    renamed??.map(drop)
}

/// Takes ownership of a descriptor that the kernel has just handed to this process and nobody owns yet.
pub fn adopt_fd(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: callers pass descriptors fresh from the kernel (SCM_RIGHTS, pidfd_open), owned by nobody.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What adjtimex(2) says of the clock; `None` if it may not be asked.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: numbers only, for which 0 is a value; mode 0 changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it points to a whole structure.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// Takes over a descriptor that execve(2) has left open for this process, and has the next one close it.
pub fn adopt_passed_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) only looks at a number that may be no descriptor.
    let marked = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(marked)?;
    adopt_fd(fd).ok_or_else(|| Errno::EBADF.into())
}

/// Sets every signal to its default action: execve(2) keeps ignored signals ignored.
pub fn default_actions() {
    for number in 1..=64 {
        // The C library's own function refuses the two signals that it uses itself.
        raw::default_action(number);
    }
}

/// Unblocks every signal: execve(2) keeps the mask.
pub fn unblock_signals() -> nix::Result<()> {
    nix::sys::signal::sigprocmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&nix::sys::signal::SigSet::empty()),
        None,
    )
}

/// Ignores these signals in this process.
pub fn ignore_signals(signals: &[nix::sys::signal::Signal]) {
    for signal in signals {
        // SAFETY: SIG_IGN is always a valid action.
        let _ = unsafe { nix::sys::signal::signal(*signal, nix::sys::signal::SigHandler::SigIgn) };
    }
}

/// `FIONBIO`: reads and writes that would have to wait fail instead (ioctl(2)).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: FIONBIO reads one int, and `yes` is one.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const yes) }).map(drop)
}

/// `FIONREAD`: how many bytes a pipe holds.
pub fn bytes_in_pipe(pipe: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `count` is one.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    usize::try_from(count).map_err(|_| Errno::EINVAL)
}

/// `TIOCSWINSZ`: how many characters a terminal shows; its foreground group gets SIGWINCH if that is new.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, and `size` is one.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// `TIOCGPTN`: the number of a terminal, given its master; the other side is `/dev/pts/` and this number.
pub fn terminal_number(master: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, and `number` is one.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}

/// The version of Landlock's interface (landlock(7)); `None` if the kernel has none, or a container's
/// filter keeps it away.
pub fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    let nothing = ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call reads no attributes and makes nothing.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// Landlock for this process and all that it will start; `no_new_privs` must be set.
pub fn landlock_restrict_self(ruleset: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the call takes a descriptor, which is open, and an integer.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    Errno::result(result).map(drop)
}

/// Has the kernel filters for system calls that can let a call fail (seccomp(2), `SECCOMP_RET_ERRNO`)?
pub fn has_seccomp_errno() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: this operation reads one number, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

/// `TIOCGPTPEER`: the other side of a terminal, given its master; not as a controlling terminal (Linux 4.13).
pub fn terminal_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes an integer.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    adopt_fd(fd).ok_or(Errno::EBADF)
}

/// Closes every descriptor from 3 on, but these.
pub fn close_fds_except(keep: &[RawFd]) -> io::Result<()> {
    for (first, last) in gaps_between(keep) {
        match close_range(first, last) {
            // Before Linux 5.9, or kept away by a filter.
            Err(Errno::ENOSYS | Errno::EPERM) => return close_one_by_one(keep),
            closed => closed?,
        }
    }
    Ok(())
}

/// Is `close_range(2)` to be had?
pub fn has_close_range() -> bool {
    // No descriptor has so high a number.
    close_range(u32::MAX, u32::MAX).is_ok()
}

fn close_range(first: u32, last: u32) -> nix::Result<()> {
    if let Err(error) = failpoint::fail("descriptors.closing") {
        return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
    }
    // SAFETY: a freshly forked child calls this; what it closes belongs to its parent's values, which the child never
    // uses or drops.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

fn close_one_by_one(keep: &[RawFd]) -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd >= 3 && !keep.contains(fd)) {
        // SAFETY: as for close_range; the one that was read from is closed already, and this call fails.
        let _ = unsafe { libc::close(fd) };
    }
    Ok(())
}

/// The ranges of descriptors from 3 on that hold none of these.
pub fn gaps_between(keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= 3)
        .collect();
    keep.sort_unstable();
    let mut gaps = Vec::with_capacity(keep.len() + 1);
    let mut first = 3;
    for fd in keep {
        if fd > first {
            gaps.push((first, fd - 1));
        }
        first = fd + 1;
    }
    gaps.push((first, u32::MAX));
    gaps
}

/// The number of an errno, as `errno -l` shows it.
#[expect(
    clippy::as_conversions,
    reason = "a C enum has no other way to its number"
)]
pub fn errno_number(errno: Errno) -> i32 {
    errno as i32
}
