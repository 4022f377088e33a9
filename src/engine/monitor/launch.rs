//! A monitor's beginning: what it takes from the supervisor, what it makes, and the start of the leader.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal::{
    SIGABRT, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTERM, SIGTRAP,
};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::between_jobs::BetweenJobs;
use super::conversation::Conversation;
use super::input::{self, Stdin};
use super::leader::{self, Inherited, Starting};
use super::processes::Processes;
use super::pump::Pump;
use super::terminal::Plugged;
use super::{Descriptors, Host, Monitor, Pipes};
use job::life::Life;
use job::outcome::{SpawnFailure, Stage};
use linux::cgroup::Group;
use linux::clock;
use linux::failpoint;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sandbox::{self, Prepared};
use linux::sys;
use linux::tree::{Reach, Tree};
use protocol::codec;
use protocol::output;
use protocol::record::{self, Record};
use protocol::wire::messages::{Begin, FromMonitor, Launch};
use protocol::wire::{self, Received};

/// Makes the monitor of a job, and its leader. If that fails, the server has been told.
pub(super) fn start(
    host: &Host,
    idle: &BetweenJobs,
    descriptors: Descriptors,
) -> Result<Monitor, ()> {
    let Descriptors { control, pipes } = descriptors;
    match launch(host, idle, &control, pipes) {
        Ok((directory, launched)) => {
            let tree = Tree::new(Reach::Subreaper(idle.me.pid), launched.group);
            let stack = Rc::clone(&idle.stack);
            Ok(Monitor {
                processes: Processes::launched(tree, launched.starting, stack),
                pump: launched.pump,
                stdin: Stdin::new(launched.input),
                server: Conversation::with(control),
                signals: Rc::clone(&idle.signals),
                timer: None,
                is_at_rest: false,
                keeps_short: launched.keeps_short,
                facts: launched.facts,
                record: launched.record,
                directory,
            })
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

/// What there is of a job once its leader has been started.
struct Launched {
    facts: Record,
    record: record::Writer,
    group: Option<Group>,
    starting: Starting,
    pump: Pump,
    /// The writing side of an open standard input.
    input: Option<OwnedFd>,
    /// Short output goes into the last record.
    keeps_short: bool,
}

/// Makes the job's directory, or opens that of the attempt before, and all that is in it. Each step here takes away what it
/// has made if a later one fails.
fn launch(
    host: &Host,
    idle: &BetweenJobs,
    control: &OwnedFd,
    pipes: Pipes,
) -> Result<(OwnedFd, Launched), SpawnFailure> {
    failpoint::hit("monitor.started");
    let launch = read_launch(control).map_err(not_made("what to launch"))?;
    let job = launch.job;
    let jobs = host.jobs.as_fd();
    let is_first = launch.attempt == 1;
    let spare = launch.spare.filter(|_| is_first);
    // One that cannot be had is as good as none.
    let taken = spare.and_then(|spare| record::take_spare(jobs, spare, job).ok());
    let (directory, record) = match taken {
        Some((directory, record)) => (directory, Some(record)),
        None => {
            let directory = match is_first {
                true => record::create_directory(jobs, job),
                false => record::reopen_directory(jobs, job),
            };
            (directory.map_err(not_made("the job's directory"))?, None)
        }
    };
    failpoint::hit("directory.made");
    let record = record.unwrap_or_else(|| record::Writer::create(directory.as_fd()));
    let launched = match record {
        Ok(record) => launch_in(host, idle, control, pipes, launch, &directory, record),
        Err(error) => {
            let failure = not_made("the job's record")(error);
            if !is_first {
                // Another launch has made one, and so has all that is there.
                return Err(failure);
            }
            Err(failure)
        }
    };
    match launched {
        Ok(launched) => Ok((directory, launched)),
        Err(failure) => {
            record::abandon(jobs, job, directory.as_fd());
            Err(failure)
        }
    }
}

fn launch_in(
    host: &Host,
    idle: &BetweenJobs,
    control: &OwnedFd,
    pipes: Pipes,
    launch: Launch,
    directory: &OwnedFd,
    mut record: record::Writer,
) -> Result<Launched, SpawnFailure> {
    failpoint::hit("record.made");
    if is_abandoned(control) {
        return Err(not_made("a job whose server is gone")(
            io::ErrorKind::BrokenPipe.into(),
        ));
    }
    let output = open_output(&launch, directory).map_err(not_made("the output"))?;
    let group = make_group(host, &launch)?;
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
        used_before: used_before(),
        output: output.totals(),
        survivors: Vec::new(),
        stdin_closed: false,
        pipes: pipes.read_inodes(),
        rescued: false,
        strays: Vec::new(),
        is_ahead: false,
        output_refused: None,
        output_waits: false,
        short: None,
    };
    let keeps_short = launch.keeps_short;
    let started = plug(&launch, pipes, control, output).and_then(|(plugs, pump, input)| {
        let sandbox = prepare_sandbox(&launch)?;
        let inherited = Inherited {
            stdin: plugs.stdin,
            stdout: plugs.stdout,
            stderr: plugs.stderr,
            group: group.as_ref(),
            original_nofile: host.original_nofile,
            sandbox,
        };
        if launch.is_held && !is_let_go(control) {
            return Err(not_made("a job that was not accepted")(
                io::ErrorKind::Interrupted.into(),
            ));
        }
        failpoint::hit("launch.let_go");
        let starting = leader::start(launch, inherited, idle, &mut record, &facts)?;
        Ok((starting, pump, input))
    });
    match started {
        Ok((starting, pump, input)) => {
            // From here on there is a leader, and nothing may fail before this monitor watches it.
            failpoint::hit("leader.forked");
            Ok(Launched {
                facts,
                record,
                group,
                starting,
                pump,
                input,
                keeps_short,
            })
        }
        Err(failure) => {
            if let Some(group) = &group {
                let _ = group.remove();
            }
            Err(failure)
        }
    }
}

/// Was the server gone before the record was there? Then the next one may not have seen it: the job is launched anew, or was
/// and is over. A server that goes later leaves a record that the next one finds.
fn is_abandoned(control: &OwnedFd) -> bool {
    // That it hangs up needs no asking for (poll(2)).
    let mut polled = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Waits until the job of a launch that is held is durable; `false` if it never will be. The server is the only one who knows,
/// and if it dies the next one launches the job anew.
fn is_let_go(control: &OwnedFd) -> bool {
    failpoint::hit("launch.held");
    loop {
        let mut polled = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
        match wire::receive::<Begin>(control.as_fd()) {
            Ok(Received::Message(Begin, _)) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Received::Closed) | Err(_) => return false,
        }
    }
}

/// What this monitor's children have used, of all of its jobs up to now.
fn used_before() -> (u64, u64) {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let used = sys::used_by_children();
    (micros(used.user), micros(used.system))
}

fn prepare_sandbox(launch: &Launch) -> Result<Option<Prepared>, SpawnFailure> {
    let wanted = launch.sandbox.as_ref();
    wanted
        .map(|wanted| sandbox::prepare(wanted, sandbox::features()))
        .transpose()
        .map_err(leader::no_sandbox)
}

/// The output of all attempts is one log.
fn open_output(launch: &Launch, directory: &OwnedFd) -> io::Result<output::Writer> {
    let (directory, policy) = (directory.try_clone()?, launch.plan.output);
    if launch.attempt == 1 {
        return Ok(output::Writer::new(directory, policy));
    }
    output::Writer::append(directory, policy, launch.log_from, clock::now().wall)
}

/// The leader's ends of its pipes or its terminal.
struct Plugs {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// Sorts the ends of the pipes: the leader's, those that are pumped here, and the one that input is written to.
fn plug(
    launch: &Launch,
    pipes: Pipes,
    control: &OwnedFd,
    output: output::Writer,
) -> Result<(Plugs, Pump, Option<OwnedFd>), SpawnFailure> {
    pipes.open_to_all();
    let (input_read, input) = pipes.stdin.filter(|_| launch.open_stdin).unzip();
    let stdin = match &launch.stdin {
        Some(bytes) => Some(input::sealed_file(bytes).map_err(not_made("standard input"))?),
        None => input_read,
    };
    let (stdout_read, stdout) = pipes.stdout;
    let (stderr_read, stderr) = pipes.stderr.unzip();
    let (stdin, input, stdout, terminal) = match &launch.pty {
        None => (stdin, input, stdout, None),
        Some(pty) => {
            let plugged = Plugged::new(pty, pipes.terminal, stdout);
            let plugged = plugged.map_err(not_made("the terminal"))?;
            let (stdin, keyboard) = (Some(plugged.stdin), Some(plugged.keyboard));
            (stdin, keyboard, plugged.stdout, Some(plugged.terminal))
        }
    };
    let ours = [
        Some(&stdout_read),
        stderr_read.as_ref(),
        input.as_ref(),
        Some(control),
    ];
    set_all_nonblocking(ours.into_iter().flatten()).map_err(not_made("the pipes"))?;
    let plugs = Plugs {
        stdin,
        stdout,
        stderr,
    };
    let pump = Pump::new(stdout_read, stderr_read, terminal, output);
    Ok((plugs, pump, input))
}

/// Makes the process that was forked a monitor; once, whatever jobs it will have.
pub(super) fn become_monitor(
    host: &Host,
    channel: OwnedFd,
    descriptors: &Descriptors,
) -> io::Result<BetweenJobs> {
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
    BetweenJobs::new(channel, signals, me)
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
    // Blocked and never read, except those that say that something here is broken: a monitor ends when its job has ended,
    // and what fails says so. Ignored, each would have to be set back in every leader, since execve(2) keeps that; and
    // one that is sent to a leader would be lost. SIGPIPE is ignored, as in the supervisor: it is what a leader meets
    // whose monitor is dead, and must not wait for it.
    let mut mask = SigSet::all();
    for broken in [
        SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTRAP,
    ] {
        mask.remove(broken);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(
        &read,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
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
