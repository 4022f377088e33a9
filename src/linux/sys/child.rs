//! A child that runs one function on its own stack, in this process's memory or in a copy of it.
//!
//! fork(2) copies every mapping that has been written to, lets both sides copy each page that they then write
//! to, and execve(2) takes all of it down again. A child that shares the memory until then does none of that.
//! Unlike after vfork(2) its parent continues: a program on a file system that hangs delays nobody but its job.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use nix::errno::Errno;
use nix::libc::{self, c_void};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect};

use super::{CLONE_INTO_CGROUP, Pid};

/// Room for a child's frames; what is not touched costs nothing.
const STACK: usize = 128 << 10;

/// Below it: the largest page that Linux has on the machines that are supported.
const GUARD: usize = 64 << 10;

/// Whose memory a child uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Its parent's, until it executes a program. It must not allocate, nor call what may, nor write errno: see
    /// [`super::raw`].
    Shared,
    /// A copy.
    Copied,
}

/// A stack for one child at a time.
#[derive(Debug)]
pub struct Stack {
    /// The guard's first byte.
    base: NonNull<c_void>,
    is_used: Cell<bool>,
}

impl Stack {
    pub fn new() -> io::Result<Self> {
        let length = NonZeroUsize::new(GUARD + STACK).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
        let stack = Self {
            base,
            is_used: Cell::new(false),
        };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is the upper part of the mapping that was just made.
        unsafe { mprotect(stack.lowest(), STACK, access) }?;
        Ok(stack)
    }

    fn lowest(&self) -> NonNull<c_void> {
        // SAFETY: the guard is the lower part of this mapping.
        unsafe { self.base.byte_add(GUARD) }
    }

    /// Is a child on it, so far as is known?
    pub fn is_used(&self) -> bool {
        self.is_used.get()
    }

    /// Lets go of the pages that the last child has used.
    pub fn give_back(&self) {
        if !self.is_used.get() {
            // SAFETY: no child is on it, so that nothing in it is of use to anybody.
            let _ = unsafe { madvise(self.lowest(), STACK, MmapAdvise::MADV_DONTNEED) };
        }
    }
}

/// A child before execve(2), with what it works by.
#[derive(Debug)]
pub struct Child<T> {
    pub pid: Pid,
    /// Closed when it has executed a program, or has ended: in the kernel both come after it has let go of the memory.
    status: OwnedFd,
    said: Vec<u8>,
    stack: Rc<Stack>,
    /// Not dropped while the child may look at it.
    plan: ManuallyDrop<Box<T>>,
}

/// There is no child, and why.
#[derive(Debug)]
pub struct NotStarted<T> {
    pub errno: Errno,
    pub plan: Box<T>,
    pub status: OwnedFd,
}

/// Starts a child in `body`, in `cgroup` if one is given (Linux 5.7).
///
/// `status` is the read end, which does not block, of a pipe whose write end is closed by execve(2) and that
/// nobody has but the child, once its parent has closed its own. The calling process must have one thread.
pub fn start<T>(
    stack: &Rc<Stack>,
    memory: Memory,
    cgroup: Option<BorrowedFd<'_>>,
    body: extern "C" fn(&T) -> !,
    plan: Box<T>,
    status: OwnedFd,
) -> Result<Child<T>, NotStarted<T>> {
    let plan = ManuallyDrop::new(plan);
    let pid = if stack.is_used.get() {
        Err(Errno::EBUSY)
    } else {
        clone(stack, memory, cgroup, body, &plan)
    };
    match pid {
        Ok(pid) => {
            stack.is_used.set(true);
            Ok(Child {
                pid,
                status,
                said: Vec::new(),
                stack: Rc::clone(stack),
                plan,
            })
        }
        Err(errno) => Err(NotStarted {
            errno,
            plan: ManuallyDrop::into_inner(plan),
            status,
        }),
    }
}

fn clone<T>(
    stack: &Stack,
    memory: Memory,
    cgroup: Option<BorrowedFd<'_>>,
    body: extern "C" fn(&T) -> !,
    plan: &T,
) -> nix::Result<Pid> {
    let shared = match memory {
        Memory::Shared => register(libc::CLONE_VM),
        Memory::Copied => 0,
    };
    let result = match cgroup {
        Some(cgroup) => {
            // SAFETY: a zeroed clone_args is a valid value of that plain C structure.
            let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
            arguments.flags = shared | CLONE_INTO_CGROUP;
            arguments.cgroup = register(cgroup.as_raw_fd());
            arguments.exit_signal = register(libc::SIGCHLD);
            arguments.stack = register(stack.lowest().addr().get());
            arguments.stack_size = register(STACK);
            let call = (
                libc::SYS_clone3,
                register((&raw const arguments).expose_provenance()),
                register(size_of::<libc::clone_args>()),
            );
            // SAFETY: the structure outlives the call and has that size; for the rest, see below.
            unsafe { clone_onto(call, body, plan) }
        }
        // Not every container's filter lets clone3(2) through, of which it could not read the flags.
        None => {
            let flags = shared | register(libc::SIGCHLD);
            let top = stack.lowest().addr().get() + STACK;
            // SAFETY: the stack is not in use and as large as it says. `body` returns never, and `plan` stays where it
            // is: on the heap, until `Child::ended` has seen that the child has let go of this memory.
            unsafe { clone_onto((libc::SYS_clone, flags, register(top)), body, plan) }
        }
    };
    let pid = i32::try_from(result).map_err(|_| Errno::EOVERFLOW)?;
    Pid::new(pid).ok_or(Errno::from_raw(pid.saturating_neg()))
}

/// A number as the kernel takes it.
fn register<T: TryInto<u64>>(number: T) -> u64 {
    number
        .try_into()
        .unwrap_or_else(|_| unreachable!("flags, sizes, addresses and open descriptors fit"))
}

/// clone(2) or clone3(2), by number and first two arguments, for a child that begins in `body` since it cannot return
/// into the frame of its parent. What else clone(2) takes is for flags that nobody sets here.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_onto<T>(
    (number, first, second): (i64, u64, u64),
    body: extern "C" fn(&T) -> !,
    plan: &T,
) -> i64 {
    let result: i64;
    // SAFETY: the kernel leaves every register but rax, rcx and r11 alone; the child's stack pointer is at the top
    // of its stack, which is a multiple of 16 as a call wants it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("r8") &raw const *plan,
            in("r9") body,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone(2) or clone3(2), by number and first two arguments, for a child that begins in `body` since it cannot return
/// into the frame of its parent. What else clone(2) takes is for flags that nobody sets here.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_onto<T>(
    (number, first, second): (i64, u64, u64),
    body: extern "C" fn(&T) -> !,
    plan: &T,
) -> i64 {
    let result: i64;
    // SAFETY: the kernel leaves every register but x0 alone; the child's stack pointer is at the top of its stack,
    // which is a multiple of 16 as the machine wants it.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x9",
            "blr x10",
            "brk 1",
            "2:",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x9") &raw const *plan,
            in("x10") body,
        );
    }
    result
}

impl<T> Child<T> {
    /// What hangs up when the child has executed a program or has ended.
    pub fn status(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// What it has said, and what it worked by, once it has executed a program or has ended; itself before that.
    pub fn ended(mut self) -> Result<(Vec<u8>, Box<T>), Self> {
        let mut bytes = [0; 256];
        loop {
            match nix::unistd::read(&self.status, &mut bytes) {
                Ok(0) => break,
                Ok(count) => self.said.extend(bytes.iter().take(count)),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(self),
            }
        }
        self.stack.is_used.set(false);
        Ok((self.said, ManuallyDrop::into_inner(self.plan)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::pipe2;

    use super::*;
    use crate::sys::{End, WaitTarget, raw, wait};

    #[derive(Debug)]
    struct Told {
        report: RawFd,
        seen: AtomicU32,
    }

    extern "C" fn tell(told: &Told) -> ! {
        told.seen.store(7, Ordering::SeqCst);
        let _ = raw::write(told.report, b"seven");
        crate::sys::exit_now(3)
    }

    /// Runs a child to its end: what it has said, and what this process finds in its own memory then.
    fn run(stack: &Rc<Stack>, memory: Memory) -> (Vec<u8>, u32) {
        let (status, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let told = Told {
            report: report.as_raw_fd(),
            seen: AtomicU32::new(0),
        };
        let child = start(stack, memory, None, tell, Box::new(told), status).unwrap();
        drop(report);
        assert!(stack.is_used());
        let pid = child.pid;
        let mut hung_up = [PollFd::new(child.status(), PollFlags::empty())];
        assert_eq!(poll(&mut hung_up, PollTimeout::from(10_000_u16)), Ok(1));
        let Ok((said, told)) = child.ended() else {
            panic!("the pipe has hung up");
        };
        assert!(!stack.is_used());
        let ended = loop {
            if let Some(ended) = wait(WaitTarget::Child(pid), true).unwrap() {
                break ended;
            }
            std::thread::yield_now();
        };
        assert_eq!(ended.end, End::Code(3));
        (said, told.seen.into_inner())
    }

    #[test]
    fn a_child_that_shares_memory_writes_to_it() {
        let stack = Rc::new(Stack::new().unwrap());
        for _ in 0..100 {
            assert_eq!(run(&stack, Memory::Shared), (b"seven".to_vec(), 7));
            stack.give_back();
        }
    }

    #[test]
    fn a_child_with_a_copy_writes_to_its_own() {
        let stack = Rc::new(Stack::new().unwrap());
        for _ in 0..100 {
            assert_eq!(run(&stack, Memory::Copied), (b"seven".to_vec(), 0));
            stack.give_back();
        }
    }

    extern "C" fn never(_: &()) -> ! {
        crate::sys::exit_now(0)
    }

    #[test]
    fn a_stack_has_one_child_at_a_time() {
        let stack = Rc::new(Stack::new().unwrap());
        stack.is_used.set(true);
        let (status, _report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let refused = start(&stack, Memory::Shared, None, never, Box::new(()), status);
        assert_eq!(
            refused.map(|child| child.pid).unwrap_err().errno,
            Errno::EBUSY
        );
    }
}
