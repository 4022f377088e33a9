//! System calls and nothing else: no errno, no variable of a thread, no allocation, no lock.
//!
//! A leader makes them while it shares the memory of its monitor (see [`super::child`]): the C library's own
//! functions write errno, which would be the monitor's, and change users in all threads of a process at once.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use syscalls::{Sysno, syscall};

/// The size of the kernel's own `sigset_t`, which the C library's is larger than (rt_sigprocmask(2)).
const SIGNAL_SET: usize = 8;

/// The highest descriptor that is closed without close_range(2). A monitor has few, all of which execve(2) closes too.
const ONE_BY_ONE: u32 = 1023;

fn errno(errno: syscalls::Errno) -> Errno {
    Errno::from_raw(errno.into_raw())
}

fn number<T: TryFrom<usize>>(value: usize) -> nix::Result<T> {
    T::try_from(value).map_err(|_| Errno::EOVERFLOW)
}

/// What execve(2) takes: strings, and an array of pointers to them that ends with a null pointer.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What the pointers point to; a string stays where it is when this moves.
    _strings: Vec<CString>,
}

impl Strings {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        }
    }
}

/// execve(2); returns only if it failed.
pub fn execve(path: &CStr, argv: &Strings, env: &Strings) -> Errno {
    let (argv, env) = (argv.pointers.as_ptr(), env.pointers.as_ptr());
    // SAFETY: the arrays end with a null pointer and point to strings; all of it outlives the call.
    match unsafe { syscall!(Sysno::execve, path.as_ptr(), argv, env) } {
        Ok(_) => Errno::UnknownErrno,
        Err(error) => errno(error),
    }
}

/// setsid(2).
pub fn setsid() -> nix::Result<()> {
    // SAFETY: the call has no arguments.
    unsafe { syscall!(Sysno::setsid) }.map(drop).map_err(errno)
}

/// getpid(2).
pub fn getpid() -> i32 {
    // SAFETY: the call has no arguments.
    let pid = unsafe { syscall!(Sysno::getpid) };
    pid.ok()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap_or_default()
}

/// getppid(2).
pub fn getppid() -> i32 {
    // SAFETY: the call has no arguments.
    let pid = unsafe { syscall!(Sysno::getppid) };
    pid.ok()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap_or_default()
}

/// clock_gettime(2) of the wall clock, in microseconds since the Unix epoch.
pub fn wall_micros() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec, and `time` is one.
    let _ = unsafe { syscall!(Sysno::clock_gettime, libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1000)
}

/// openat(2), relative to the working directory and with `O_CLOEXEC`. Whoever opens it closes it, if only by
/// execve(2): a number has no owner.
pub fn open(path: &CStr, flags: i32) -> nix::Result<RawFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path outlives the call.
    let fd = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) };
    number(fd.map_err(errno)?)
}

/// close(2).
pub fn close(fd: RawFd) {
    // SAFETY: a leader uses numbers alone, and this one no more; its parent has its own table.
    let _ = unsafe { syscall!(Sysno::close, fd) };
}

/// read(2): how many bytes there are in `bytes` now.
pub fn read(fd: RawFd, bytes: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: pointer and length are those of one slice, which may be written.
    unsafe { syscall!(Sysno::read, fd, bytes.as_mut_ptr(), bytes.len()) }.map_err(errno)
}

/// write(2), all of it or an error.
pub fn write(fd: RawFd, bytes: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one slice.
    let count = unsafe { syscall!(Sysno::write, fd, bytes.as_ptr(), bytes.len()) };
    whole(count.map_err(errno)?, bytes)
}

/// pwrite(2), all of it or an error.
pub fn write_at(fd: RawFd, bytes: &[u8], offset: u64) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one slice.
    let count = unsafe { syscall!(Sysno::pwrite64, fd, bytes.as_ptr(), bytes.len(), offset) };
    whole(count.map_err(errno)?, bytes)
}

fn whole(count: usize, bytes: &[u8]) -> nix::Result<()> {
    if count == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EIO)
    }
}

/// Opens a file, writes the text and closes it.
pub fn write_to(path: &CStr, text: &CStr) -> nix::Result<()> {
    let file = open(path, libc::O_WRONLY)?;
    let written = write(file, text.to_bytes());
    close(file);
    written
}

/// unlinkat(2) of a file.
#[cfg(debug_assertions)]
pub fn unlink(path: &CStr) -> nix::Result<()> {
    // SAFETY: the path outlives the call.
    let result = unsafe { syscall!(Sysno::unlinkat, libc::AT_FDCWD, path.as_ptr(), 0) };
    result.map(drop).map_err(errno)
}

/// kill(2) of a process, for failpoints alone.
#[cfg(debug_assertions)]
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: the call takes two integers.
    let _ = unsafe { syscall!(Sysno::kill, pid, signal) };
}

/// sched_yield(2), for failpoints alone.
#[cfg(debug_assertions)]
pub fn yield_now() {
    // SAFETY: the call has no arguments.
    let _ = unsafe { syscall!(Sysno::sched_yield) };
}

/// setrlimit(2). The number of a resource has another type in each C library; this is wide enough for all.
pub fn set_limit(resource: i64, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let none = ptr::null::<libc::rlimit64>();
    // SAFETY: the call reads one rlimit64, and `limit` is one.
    unsafe { syscall!(Sysno::prlimit64, 0, resource, &raw const limit, none) }
        .map(drop)
        .map_err(errno)
}

/// umask(2).
pub fn umask(mask: u32) {
    // SAFETY: the call takes an integer.
    let _ = unsafe { syscall!(Sysno::umask, mask) };
}

/// setpriority(2) of the calling process.
pub fn set_nice(nice: i32) -> nix::Result<()> {
    let whom = libc::PRIO_PROCESS;
    // SAFETY: the call takes three integers.
    unsafe { syscall!(Sysno::setpriority, whom, 0, nice) }
        .map(drop)
        .map_err(errno)
}

/// ioprio_set(2) of the calling process.
pub fn set_io_priority(priority: u32) -> nix::Result<()> {
    const ME: i32 = 1; // IOPRIO_WHO_PROCESS, with 0 for the caller.
    // SAFETY: the call takes three integers.
    unsafe { syscall!(Sysno::ioprio_set, ME, 0, priority) }
        .map(drop)
        .map_err(errno)
}

/// A slice of the processor for the calling thread and all that come from it; `None`: the kernel's own. A thread with a
/// shorter one than those that run is let in at once when it wakes, and gets no more of the processor for it. Linux
/// before 6.12 takes no notice. sched_setattr(2)
pub fn set_slice(slice: Option<Duration>) {
    let none = 0_u32;
    // SAFETY: a zeroed sched_attr is a valid value of that plain C structure.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the call writes at most one sched_attr.
    let got = unsafe { syscall!(Sysno::sched_getattr, 0, &raw mut attributes, size, none) };
    // Of other policies it would be a change of more than the slice.
    if got.is_ok() && i64::from(attributes.sched_policy) == i64::from(libc::SCHED_OTHER) {
        let nanos = slice.map_or(0, |slice| slice.as_nanos());
        attributes.sched_runtime = u64::try_from(nanos).unwrap_or_default();
        attributes.sched_flags = 0;
        // SAFETY: the call reads one sched_attr, whose size is in it.
        let _ = unsafe { syscall!(Sysno::sched_setattr, 0, &raw const attributes, none) };
    }
}

/// Sets back what a process has from those before it and execve(2) keeps, where it may do that: scheduling policy
/// (sched_setscheduler(2)), slice (sched_setattr(2)), I/O class (ioprio_set(2)), memory policy (set_mempolicy(2)), timer slack
/// (prctl(2)), inheritable capabilities and with them the ambient ones (capabilities(7)), and the flags of its personality(2), of which the kind of system stays.
pub fn set_back_heritage() {
    const ME: i32 = 1; // IOPRIO_WHO_PROCESS, with 0 for the caller.
    const SLACK_NANOS: u32 = 50_000;
    const ASK: u32 = u32::MAX;
    const CAPABILITIES: u32 = 0x2008_0522; // _LINUX_CAPABILITY_VERSION_3
    const KIND: usize = 0xff; // PER_MASK
    let priority: i32 = 0;
    let none = ptr::null::<u64>();
    // SAFETY: the call reads one sched_param, which is one integer to the kernel, whatever a C library adds to it.
    let _ = unsafe {
        syscall!(
            Sysno::sched_setscheduler,
            0,
            libc::SCHED_OTHER,
            &raw const priority
        )
    };
    set_slice(None);
    // SAFETY: the call takes three integers.
    let _ = unsafe { syscall!(Sysno::ioprio_set, ME, 0, 0) };
    // SAFETY: the default policy has no nodes.
    let _ = unsafe { syscall!(Sysno::set_mempolicy, 0, none, 0) };
    // SAFETY: the call takes integers.
    let _ = unsafe { syscall!(Sysno::prctl, libc::PR_SET_TIMERSLACK, SLACK_NANOS, 0, 0, 0) };
    let mut header = [CAPABILITIES, 0];
    // Effective, permitted and inheritable, the lower halves and the upper ones.
    let mut sets = [0_u32; 6];
    // SAFETY: the call writes six numbers of 32 bits, and reads two.
    if unsafe { syscall!(Sysno::capget, header.as_mut_ptr(), sets.as_mut_ptr()) }.is_ok() {
        let [_, _, low, _, _, high] = &mut sets;
        (*low, *high) = (0, 0);
        // SAFETY: the call reads six numbers of 32 bits, and two.
        let _ = unsafe { syscall!(Sysno::capset, header.as_mut_ptr(), sets.as_ptr()) };
    }
    // SAFETY: the call takes an integer.
    if let Ok(personality) = unsafe { syscall!(Sysno::personality, ASK) }
        && personality & !KIND != 0
    {
        // SAFETY: the call takes an integer.
        let _ = unsafe { syscall!(Sysno::personality, personality & KIND) };
    }
}

/// sched_setaffinity(2) of the calling process: bit n of the words is CPU n.
pub fn set_affinity(cpus: &[u64]) -> nix::Result<()> {
    let size = size_of_val(cpus);
    // SAFETY: pointer and length are those of one slice.
    unsafe { syscall!(Sysno::sched_setaffinity, 0, size, cpus.as_ptr()) }
        .map(drop)
        .map_err(errno)
}

/// dup3(2): makes `target` mean what `source` means, over execve(2) as well.
pub fn duplicate(source: RawFd, target: RawFd) -> nix::Result<()> {
    // SAFETY: a leader has no values that own descriptors.
    unsafe { syscall!(Sysno::dup3, source, target, 0) }
        .map(drop)
        .map_err(errno)
}

/// `close_range(2)`: closes the descriptors from `first` to `last`. If the kernel has no such call (before Linux 5.9), or
/// a filter keeps it away, one by one up to 1023.
pub fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: a leader has no values that own descriptors.
    match unsafe { syscall!(Sysno::close_range, first, last, 0) }.map_err(errno) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => {
            for fd in first..=last.min(ONE_BY_ONE) {
                // SAFETY: as above.
                let _ = unsafe { syscall!(Sysno::close, fd) };
            }
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// `TIOCSCTTY`: makes a terminal the controlling one of the session that the caller leads.
pub fn make_controlling(terminal: RawFd) -> nix::Result<()> {
    // SAFETY: the request takes an integer.
    unsafe { syscall!(Sysno::ioctl, terminal, libc::TIOCSCTTY, 0) }
        .map(drop)
        .map_err(errno)
}

/// fchown(2) of the user alone.
pub fn set_owner(fd: RawFd, uid: u32) -> nix::Result<()> {
    // SAFETY: the call takes three integers.
    unsafe { syscall!(Sysno::fchown, fd, uid, u32::MAX) }
        .map(drop)
        .map_err(errno)
}

/// setgroups(2), setresgid(2), setresuid(2) of the calling thread, in the order in which each is still allowed.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of one slice.
    unsafe { syscall!(Sysno::setgroups, groups.len(), groups.as_ptr()) }.map_err(errno)?;
    // SAFETY: the call takes integers.
    unsafe { syscall!(Sysno::setresgid, gid, gid, gid) }.map_err(errno)?;
    // SAFETY: the call takes integers.
    unsafe { syscall!(Sysno::setresuid, uid, uid, uid) }
        .map(drop)
        .map_err(errno)
}

/// setresuid(2) of the calling thread alone.
pub fn become_uid(uid: u32) -> nix::Result<()> {
    // SAFETY: the call takes integers.
    unsafe { syscall!(Sysno::setresuid, uid, uid, uid) }
        .map(drop)
        .map_err(errno)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> nix::Result<()> {
    // SAFETY: the path outlives the call.
    unsafe { syscall!(Sysno::chdir, path.as_ptr()) }
        .map(drop)
        .map_err(errno)
}

/// prctl(2) `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> nix::Result<()> {
    // SAFETY: the call takes integers.
    unsafe { syscall!(Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }
        .map(drop)
        .map_err(errno)
}

/// One call with two names.
#[cfg(target_arch = "x86_64")]
const FSTATAT: Sysno = Sysno::newfstatat;
#[cfg(target_arch = "aarch64")]
const FSTATAT: Sysno = Sysno::fstatat;

/// What kind of file there is, links followed: the part of `st_mode` that says it.
pub fn kind_of(path: &CStr) -> nix::Result<libc::mode_t> {
    // SAFETY: a zeroed stat is a valid value of that plain C structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the path outlives the call, which writes one stat, and `stat` is one.
    unsafe { syscall!(FSTATAT, libc::AT_FDCWD, path.as_ptr(), &raw mut stat, 0) }.map_err(errno)?;
    Ok(stat.st_mode & libc::S_IFMT)
}

/// access(2): may the caller execute it?
pub fn is_executable(path: &CStr) -> bool {
    // SAFETY: the path outlives the call.
    unsafe { syscall!(Sysno::faccessat, libc::AT_FDCWD, path.as_ptr(), libc::X_OK) }.is_ok()
}

/// Sets a signal to its default action (rt_sigaction(2)); those that have no other have it already.
pub fn default_action(signal: i32) {
    // The kernel's structure: the action, flags, a restorer and a mask, here all zero.
    let action = [0_u64; 4];
    let none = ptr::null::<u64>();
    // SAFETY: the call reads one structure of that size, and `action` is one.
    let _ = unsafe {
        syscall!(
            Sysno::rt_sigaction,
            signal,
            action.as_ptr(),
            none,
            SIGNAL_SET
        )
    };
}

/// Blocks every signal that can be blocked.
pub fn block_signals() -> nix::Result<()> {
    set_mask(u64::MAX)
}

/// Unblocks every signal: execve(2) keeps the mask.
pub fn unblock_signals() -> nix::Result<()> {
    set_mask(0)
}

fn set_mask(mask: u64) -> nix::Result<()> {
    let before = ptr::null::<u64>();
    // SAFETY: the call reads one mask of that size, and `mask` is one.
    unsafe {
        syscall!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            before,
            SIGNAL_SET
        )
    }
    .map(drop)
    .map_err(errno)
}
