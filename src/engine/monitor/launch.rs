//! A monitor's beginning: what it takes from the supervisor, what it makes, and the start of the leader.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::sys::prctl;
use nix::sys::signal::Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::fstat;

use super::control::Outbox;
use super::idle::Idle;
use super::input::{self, Stdin};
use super::leader::{self, Inherited};
use super::pump::Width;
use super::terminal::Plugged;
use super::{Descriptors, Host, Monitor, Pipes, Reaper};
use job::OutputTotals;
use job::life::Life;
use job::outcome::{SpawnFailure, Stage};
use linux::cgroup::Group;
use linux::failpoint;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sandbox;
use linux::sys;
use linux::tree::{Reach, Tree};
use protocol::codec;
use protocol::output;
use protocol::record::{self, Record};
use protocol::wire::messages::{FromMonitor, Launch};
use protocol::wire::{self, Received};

/// Makes the monitor of a job, and its leader. Where that fails, the server has been told.
pub(super) fn start(host: &Host, idle: &Idle, descriptors: Descriptors) -> Result<Monitor, ()> {
    let Descriptors { control, pipes } = descriptors;
    match launch(host, idle, &control, pipes) {
        Ok(mut monitor) => {
            monitor.control = Some(control);
            Ok(monitor)
        }
        Err(failure) => {
            refuse(&control, failure);
            Err(())
        }
    }
}

/// Tells the server that there will be no leader, and why.
pub(super) fn refuse(control: &OwnedFd, failure: SpawnFailure) {
    let _ = wire::send(control.as_fd(), &FromMonitor::NotLaunched(failure), &[]);
}

pub(super) fn not_made(what: &str) -> impl FnOnce(io::Error) -> SpawnFailure {
    let what = what.to_owned();
    move |error| SpawnFailure {
        stage: Stage::Fork,
        errno: error.raw_os_error().unwrap_or_default(),
        message: format!("failed to make {what}: {error}"),
    }
}

fn launch(
    host: &Host,
    idle: &Idle,
    control: &OwnedFd,
    pipes: Pipes,
) -> Result<Monitor, SpawnFailure> {
    let Pipes {
        stdin: input,
        stdout,
        stderr,
        terminal,
    } = pipes;
    failpoint::hit("monitor.started");
    let launch = read_launch(control).map_err(not_made("what to launch"))?;
    let directory = record::create_directory(host.jobs.as_fd(), launch.job)
        .map_err(not_made("the job's directory"))?;
    failpoint::hit("directory.made");
    let job = launch.job;
    let abandon = |failure| {
        record::abandon(host.jobs.as_fd(), job, directory.as_fd());
        failure
    };
    let mut record = record::Writer::create(directory.as_fd())
        .map_err(not_made("the job's record"))
        .map_err(abandon)?;
    failpoint::hit("record.made");
    let group = make_group(host, &launch).map_err(abandon)?;
    let facts = Record {
        job: launch.job,
        attempt: launch.attempt,
        boot_id: host.boot_id.clone(),
        monitor: idle.me,
        leader: None,
        cgroup: group.as_ref().map(Group::path),
        life: Life::new(launch.plan.clone()),
        deadline_at: None,
        usage: None,
        output: OutputTotals::default(),
        survivors: Vec::new(),
        stdin_closed: false,
        pipes: inodes([Some(&stdout.0), stderr.as_ref().map(|pipe| &pipe.0)]),
        rescued: false,
        strays: Vec::new(),
        is_ahead: false,
    };
    let abandon = |failure| {
        if let Some(group) = &group {
            let _ = group.remove();
        }
        abandon(failure)
    };
    let (input_read, input) = input.filter(|_| launch.open_stdin).unzip();
    let stdin = match &launch.stdin {
        Some(bytes) => Some(
            input::sealed_file(bytes)
                .map_err(not_made("standard input"))
                .map_err(abandon)?,
        ),
        None => input_read,
    };
    let (stderr_read, stderr_write) = stderr.unzip();
    let (stdin, input, stdout_write, terminal) = match &launch.pty {
        None => (stdin, input, stdout.1, None),
        Some(pty) => {
            let plugged = Plugged::new(pty, terminal, stdout.1)
                .map_err(not_made("the terminal"))
                .map_err(abandon)?;
            let Plugged {
                stdin,
                keyboard,
                stdout,
                terminal,
            } = plugged;
            (Some(stdin), Some(keyboard), stdout, Some(terminal))
        }
    };
    let ours = [
        Some(&stdout.0),
        stderr_read.as_ref(),
        input.as_ref(),
        Some(control),
    ];
    set_all_nonblocking(ours.into_iter().flatten())
        .map_err(not_made("the pipes"))
        .map_err(abandon)?;
    let output = directory
        .try_clone()
        .map_err(not_made("the output"))
        .map_err(abandon)?;
    let sandbox = launch
        .sandbox
        .as_ref()
        .map(|wanted| sandbox::prepare(wanted, sandbox::features()))
        .transpose()
        .map_err(leader::no_sandbox)
        .map_err(abandon)?;
    let inherited = Inherited {
        stdin,
        stdout: stdout_write,
        stderr: stderr_write,
        group: group.as_ref(),
        original_nofile: host.original_nofile,
        sandbox,
    };
    let keep = launch.plan.output;
    let starting = leader::start(launch, inherited, idle, &mut record, &facts).map_err(abandon)?;
    // From here on there is a leader, and nothing may fail before this monitor watches it.
    failpoint::hit("leader.forked");
    Ok(Monitor {
        tree: Tree::new(Reach::Subreaper(idle.me.pid), group),
        reaper: Reaper::Own,
        leader: starting.pid(),
        leader_reaped: false,
        leader_gone: false,
        left_behind_told: false,
        used: sys::Usage::default(),
        signals: Rc::clone(&idle.signals),
        timer: None,
        starting: Some(starting),
        stack: Some(Rc::clone(&idle.stack)),
        stdout: Some(stdout.0),
        stderr: stderr_read,
        terminal,
        output: output::Writer::new(output, keep),
        output_retry_at: None,
        control: None,
        listener: None,
        outbox: Outbox::default(),
        stdin: Stdin::new(input),
        kill: None,
        is_at_rest: false,
        width: Width::default(),
        facts,
        record,
        directory,
    })
}

/// Makes the process that was forked a monitor; once, whatever jobs it will have.
pub(super) fn become_monitor(
    host: &Host,
    channel: OwnedFd,
    descriptors: &Descriptors,
) -> io::Result<Idle> {
    let mut keep = descriptors.all();
    keep.extend([&host.jobs, &host.idle, &channel]);
    prctl::set_child_subreaper(true)?;
    // Until this is done, a descriptor made here could be among those that it closes.
    let signals = detach(&keep)?;
    let me = procfs::own_stat()?;
    let me = ProcessIdentity {
        pid: me.pid,
        start_ticks: me.start_ticks,
    };
    Idle::new(channel, signals, me)
}

/// Own session, own name, own signals, and no descriptor of the supervisor's but these.
pub(super) fn detach(keep: &[&OwnedFd]) -> io::Result<SignalFd> {
    nix::unistd::setsid()?;
    prctl::set_name(c"procession-mon")?;
    let keep: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    sys::close_fds_except(&keep)?;
    let mut read = SigSet::empty();
    read.add(SIGCHLD);
    read.add(SIGTERM);
    // Blocked and never read: a monitor ends when its job has ended, and what fails says so. Ignored, each would have to
    // be set back in every leader, since execve(2) keeps that; and one that is sent to a leader would be lost. SIGPIPE is
    // ignored, as in the supervisor: it is what a leader meets whose monitor is dead, and must not wait for it.
    let mut mask = read;
    mask.extend([SIGHUP, SIGINT, SIGQUIT, SIGXFSZ]);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(
        &read,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// The inodes of pipes: who holds one of the job's is of the job.
pub(super) fn inodes<const N: usize>(pipes: [Option<&OwnedFd>; N]) -> Vec<u64> {
    let inode = |pipe| Some(fstat(pipe).ok()?.st_ino);
    pipes.into_iter().flatten().filter_map(inode).collect()
}

fn read_launch(control: &OwnedFd) -> io::Result<Launch> {
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    match wire::receive::<Option<Launch>>(control.as_fd())? {
        Received::Message(Some(launch), _) => Ok(launch),
        Received::Message(None, files) => {
            let file = File::from(files.into_iter().next().ok_or_else(missing)?);
            let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, 0)?;
            codec::decode::<Option<Launch>>(&bytes)?.ok_or_else(missing)
        }
        Received::Closed => Err(missing()),
    }
}

fn make_group(host: &Host, launch: &Launch) -> Result<Option<Group>, SpawnFailure> {
    let Some(home) = &host.cgroup else {
        return Ok(None);
    };
    match home.create(&launch.job.to_string(), &launch.limits) {
        Ok(group) => Ok(Some(group)),
        // Containment falls back to the subreaper alone; a limit that was asked for does not fall away.
        Err(_) if launch.limits.is_empty() => Ok(None),
        Err(error) => Err(SpawnFailure {
            stage: Stage::Cgroup,
            errno: error.raw_os_error().unwrap_or_default(),
            message: format!("failed to {}: {error}", Stage::Cgroup.describe()),
        }),
    }
}

fn set_all_nonblocking<'a>(fds: impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
    failpoint::fail("pipes.preparing")?;
    for fd in fds {
        sys::set_nonblocking(fd.as_fd())?;
    }
    Ok(())
}
