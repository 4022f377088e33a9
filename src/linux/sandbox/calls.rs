//! The seccomp filter: system calls that fail with EPERM, since no ordinary program makes them and each has
//! been a way into the kernel, out of a container, or onto somebody's terminal.
//!
//! A list of what is refused, not of what is allowed: jobs are any program, and a new kernel's harmless call
//! must not break them. Container engines that allow by list follow every kernel release.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Failure;

/// The architecture that this program was built for; calls by another one (32-bit programs) end the process
/// with SIGSYS, since their numbers mean other calls.
#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Refused whatever the arguments. Numbers from 424 on are the same everywhere; some are newer than libc.
const REFUSED: &[libc::c_long] = &[
    // Mounts, old and new.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    428, // open_tree
    429, // move_mount
    430, // fsopen
    431, // fsconfig
    432, // fsmount
    433, // fspick
    442, // mount_setattr
    467, // open_tree_attr
    // Into other namespaces, and to files without their paths.
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    443, // quotactl_fd
    // Key rings are shared by all processes of a user.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The clock is everybody's.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// Ports of the machine; only x86 has these.
#[cfg(target_arch = "x86_64")]
const OF_ARCH: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const OF_ARCH: &[libc::c_long] = &[];

/// Looks into other processes. With Landlock in force the kernel allows these within the job only, and
/// debuggers and sanitizers continue to work there.
const TRACING: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    438, // pidfd_getfd
];

const CLONE3: u32 = 435;

/// Requests of ioctl(2), as the filter compares them; each C library has them in a type of its own.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// x86-64 has every call a second time from this number on (x32), which rules by number would not see.
const X32: u32 = 0x4000_0000;

/// The filter; `traces_its_own` where something else keeps tracing within the job. `offline`: no sockets but those of this
/// machine alone (unix, netlink), and no rings, by which sockets are made that no filter sees.
pub(super) fn filter(traces_its_own: bool, offline: bool) -> Result<BpfProgram, Failure> {
    let not_built = |_| Failure {
        errno: Errno::EINVAL,
        on: "the seccomp filter".to_owned(),
    };
    let tracing = if traces_its_own { &[][..] } else { TRACING };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [REFUSED, OF_ARCH, tracing]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let flag = SeccompCmpOp::MaskedEq(new_user);
    for (call, argument, op, value) in [
        // A user namespace makes everybody root of a part of the kernel.
        (libc::SYS_clone, 0, flag.clone(), new_user),
        (libc::SYS_unshare, 0, flag, new_user),
        // Typing on the terminal of whoever started the service.
        (libc::SYS_ioctl, 1, SeccompCmpOp::Eq, TIOCSTI),
        (libc::SYS_ioctl, 1, SeccompCmpOp::Eq, TIOCLINUX),
    ] {
        // The kernel looks at 32 bits of these arguments: so must the filter.
        let rule = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(not_built)?;
        rules.entry(call).or_default().push(rule);
    }
    if offline {
        let is_not = |family: libc::c_int| {
            let family = u64::from(family.unsigned_abs());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
        };
        let families = is_not(libc::AF_UNIX)
            .and_then(|unix| SeccompRule::new(vec![unix, is_not(libc::AF_NETLINK)?]));
        rules.insert(libc::SYS_socket, vec![families.map_err(not_built)?]);
        rules.insert(libc::SYS_io_uring_setup, Vec::new());
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCH)
        .and_then(BpfProgram::try_from)
        .map_err(not_built)?;
    Ok(before(filter))
}

/// Two questions that a filter with one answer cannot ask come first: clone3 has its flags in memory, where
/// no filter sees them, and with ENOSYS the C library continues with clone.
fn before(filter: BpfProgram) -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, at offset 0
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let mut program = vec![
        op(LOAD_NUMBER, 0, 0, 0),
        op(JUMP_IF_EQUAL, 1, 0, CLONE3),
        op(JUMP_IF_AT_LEAST, 0, 1, X32),
        op(RETURN, 0, 0, no_such_call),
    ];
    program.extend(filter);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCGETS: u64 = 0x5401;
    const TIOCGWINSZ: u64 = 0x5413;
    const FIONREAD: u64 = 0x541b;

    #[cfg(target_arch = "x86_64")]
    const OURS: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const OURS: u32 = 0xc000_00b7;
    /// 32-bit x86 and ARM.
    const FOREIGN: [u32; 2] = [0x4000_0003, 0x4000_0028];

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

    fn refused(errno: libc::c_int) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
    }

    /// What the kernel would answer to a call: the program, followed by hand (see seccomp(2) for the layout).
    fn answer(program: &BpfProgram, arch: u32, call: libc::c_long, arguments: &[u64]) -> u32 {
        let number = u32::try_from(call).unwrap();
        let mut words = vec![number, arch, 0, 0];
        for at in 0..6 {
            let argument = arguments.get(at).copied().unwrap_or_default();
            words.push(u32::try_from(argument & 0xffff_ffff).unwrap());
            words.push(u32::try_from(argument >> 32).unwrap());
        }
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let op = &program[at];
            let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
            at += 1;
            at += match op.code {
                0x20 => {
                    value = words[usize::try_from(op.k).unwrap() / 4];
                    0
                }
                0x54 => {
                    value &= op.k;
                    0
                }
                0x05 => usize::try_from(op.k).unwrap(),
                0x15 => jump(value == op.k),
                0x25 => jump(value > op.k),
                0x35 => jump(value >= op.k),
                0x06 => return op.k,
                code => panic!("an operation that is not used here: {code:#x}"),
            };
        }
    }

    #[test]
    fn every_call_of_the_list_is_refused_and_ordinary_ones_are_not() {
        let program = filter(true, false).unwrap();
        let ask = |call, arguments: &[u64]| answer(&program, OURS, call, arguments);
        for call in [REFUSED, OF_ARCH].concat() {
            assert_eq!(ask(call, &[]), refused(libc::EPERM), "{call}");
        }
        for call in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_socket,
            libc::SYS_kill,
            libc::SYS_seccomp,
            436, // close_range
            463, // removexattrat
        ] {
            assert_eq!(ask(call, &[u64::MAX; 6]), ALLOWED, "{call}");
        }
    }

    #[test]
    fn of_some_calls_the_arguments_decide() {
        let program = filter(true, false).unwrap();
        let ask = |call, arguments: &[u64]| answer(&program, OURS, call, arguments);
        let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        let others = 0x7fff_ffff & !new_user;
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            for flags in [new_user, new_user | others, new_user | 1 << 40] {
                assert_eq!(ask(call, &[flags]), refused(libc::EPERM), "{flags:#x}");
            }
            // The kernel does not look at the upper half.
            for flags in [0, others, new_user << 32] {
                assert_eq!(ask(call, &[flags]), ALLOWED, "{flags:#x}");
            }
        }
        for request in [TIOCSTI, TIOCLINUX, TIOCSTI | 1 << 32] {
            let said = ask(libc::SYS_ioctl, &[0, request]);
            assert_eq!(said, refused(libc::EPERM), "{request:#x}");
        }
        for request in [TCGETS, TIOCGWINSZ, FIONREAD] {
            assert_eq!(ask(libc::SYS_ioctl, &[0, request]), ALLOWED);
        }
        // The request is the second argument, not the first.
        assert_eq!(ask(libc::SYS_ioctl, &[TIOCSTI, 0]), ALLOWED);
    }

    #[test]
    fn without_a_network_there_are_sockets_of_this_machine_alone() {
        let program = filter(true, true).unwrap();
        let ask = |call, arguments: &[u64]| answer(&program, OURS, call, arguments);
        let family = |family: libc::c_int| u64::from(family.unsigned_abs());
        for refusing in [
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_PACKET,
            libc::AF_VSOCK,
        ] {
            let said = ask(libc::SYS_socket, &[family(refusing), 2]);
            assert_eq!(said, refused(libc::EPERM), "{refusing}");
        }
        for allowed in [libc::AF_UNIX, libc::AF_NETLINK] {
            assert_eq!(ask(libc::SYS_socket, &[family(allowed), 1]), ALLOWED);
        }
        let ring = ask(libc::SYS_io_uring_setup, &[]);
        assert_eq!(ring, refused(libc::EPERM));
    }

    #[test]
    fn calls_that_the_rules_cannot_see_are_not_there() {
        let program = filter(true, false).unwrap();
        let ask = |call| answer(&program, OURS, call, &[]);
        assert_eq!(ask(libc::SYS_clone3), refused(libc::ENOSYS));
        for call in [0, libc::SYS_mount, 0x3fff_ffff] {
            assert_eq!(ask(call | 0x4000_0000), refused(libc::ENOSYS), "{call}");
        }
        for arch in FOREIGN {
            // mount(2) is 21 there.
            let said = answer(&program, arch, 21, &[]);
            assert_eq!(said, libc::SECCOMP_RET_KILL_PROCESS, "{arch:#x}");
        }
    }

    #[test]
    fn tracing_is_refused_where_nothing_else_bounds_it() {
        for (traces_its_own, expected) in [(true, ALLOWED), (false, refused(libc::EPERM))] {
            let program = filter(traces_its_own, false).unwrap();
            for call in TRACING {
                assert_eq!(answer(&program, OURS, *call, &[]), expected, "{call}");
            }
        }
    }
}
