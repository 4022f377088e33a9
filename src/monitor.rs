//! The monitor of one job: one thread, a subreaper, forked from the supervisor and never executed.
//!
//! It owns the job's processes, output and record: next event → pure state machine → effect. It knows no
//! store and no HTTP, goes on when the server or the supervisor dies, and ends when its job has ended.

mod leader;
mod tree;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage, rlim_t};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::time::TimeValLike;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::cgroup::Home;
use crate::clock::Now;
use crate::job::life::{Effect, Event, Life, Phase, Stop, Verdict};
use crate::job::outcome::{Cause, Exit, ExitStatus, SpawnFailure, Stage, Usage};
use crate::job::spec::OnLimit;
use crate::job::{OutputTotals, Signal};
use crate::output::{self, Pumped, Stream};
use crate::procfs;
use crate::record::{self, ProcessIdentity, Record};
use crate::sys::{self, End, Pid, WaitTarget};
use crate::wire::messages::{FromMonitor, Launch, Request, RequestRefused, ToMonitor};
use crate::wire::{self, Received};
use leader::{Inherited, Report};
use tree::{Delivery, Tree};

/// How soon a kill is repeated while something is left, at first and at most.
const SWEEP_FIRST: Duration = Duration::from_millis(20);
const SWEEP_MOST: Duration = Duration::from_secs(1);

/// After so long a kill names those that it could not end.
const SURVIVORS_AFTER: Duration = Duration::from_secs(5);

/// The most survivors that are named.
const SURVIVORS_NAMED: usize = 16;

/// How soon output is tried again after the disk refused it.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// What every monitor gets from the supervisor by being forked from it.
#[derive(Debug)]
pub(crate) struct Host {
    /// The directory of the jobs' directories.
    pub(crate) jobs: OwnedFd,
    pub(crate) boot_id: String,
    pub(crate) cgroup: Option<Home>,
    /// The limit of open files, soft and hard, that the service was started with; the supervisor raises
    /// its own, and a job gets this one.
    pub(crate) original_nofile: (rlim_t, rlim_t),
}

/// The descriptors of one launch.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) control: OwnedFd,
    pub(crate) launch: OwnedFd,
    /// Standard output: read end, write end.
    pub(crate) stdout: (OwnedFd, OwnedFd),
    /// Standard error; `None` where it is merged.
    pub(crate) stderr: Option<(OwnedFd, OwnedFd)>,
}

/// Runs a monitor in the process that has just been forked for it.
pub(crate) fn run(host: &Host, descriptors: Descriptors) -> ! {
    let code = match start(host, descriptors) {
        Ok(mut monitor) => match monitor.serve() {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(job.id = %monitor.facts.job, %error, "monitor of job {} failed: {error}", monitor.facts.job);
                1
            }
        },
        Err(()) => 0,
    };
    sys::exit_now(code)
}

struct Monitor {
    facts: Record,
    record: record::Writer,
    directory: OwnedFd,
    tree: Tree,
    leader: Pid,
    leader_reaped: bool,
    left_behind_told: bool,
    signals: SignalFd,
    timer: Option<TimerFd>,
    status: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: output::Writer,
    output_retry_at: Option<crate::clock::BootInstant>,
    control: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    unsent: bool,
    kill: Option<Kill>,
}

/// A kill under way.
#[derive(Clone, Copy, Debug)]
struct Kill {
    since: crate::clock::BootInstant,
    next: crate::clock::BootInstant,
    pause: Duration,
}

/// Which descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Signal,
    Status,
    Stdout,
    Stderr,
    Control,
    Listener,
    Timer,
}

fn start(host: &Host, descriptors: Descriptors) -> Result<Monitor, ()> {
    // Until this is done, a descriptor made here could be among those that it closes.
    let prepared = become_monitor(host, &descriptors);
    let control = descriptors.control.try_clone();
    let launched = prepared
        .map_err(not_made("the monitor"))
        .and_then(|signals| launch(host, descriptors, signals));
    launched.map_err(|failure| {
        if let Ok(control) = control {
            let _ = wire::send(control.as_fd(), &FromMonitor::NotLaunched(failure), &[]);
        }
    })
}

fn not_made(what: &str) -> impl FnOnce(io::Error) -> SpawnFailure {
    let what = what.to_owned();
    move |error| SpawnFailure {
        stage: Stage::Fork,
        errno: error.raw_os_error().unwrap_or_default(),
        message: format!("failed to make {what}: {error}"),
    }
}

fn launch(
    host: &Host,
    descriptors: Descriptors,
    signals: SignalFd,
) -> Result<Monitor, SpawnFailure> {
    let Descriptors {
        control,
        launch,
        stdout,
        stderr,
    } = descriptors;
    let launch: Launch = read_launch(launch).map_err(not_made("the launch file"))?;
    let directory = record::create_directory(host.jobs.as_fd(), launch.job)
        .map_err(not_made("the job's directory"))?;
    let abandon = |failure| {
        let _ = record::remove(host.jobs.as_fd(), launch.job);
        failure
    };
    let mut record = record::Writer::create(directory.as_fd())
        .map_err(not_made("the job's record"))
        .map_err(abandon)?;
    let group = make_group(host, &launch).map_err(abandon)?;
    let me = procfs::own_stat()
        .map_err(not_made("the monitor"))
        .map_err(abandon)?;
    let facts = Record {
        job: launch.job,
        attempt: launch.attempt,
        boot_id: host.boot_id.clone(),
        monitor: ProcessIdentity {
            pid: me.pid,
            start_ticks: me.start_ticks,
        },
        leader: None,
        cgroup: group.as_ref().map(crate::cgroup::Group::path),
        life: Life::new(launch.plan.clone()),
        deadline_at: None,
        usage: None,
        output: OutputTotals::default(),
        survivors: Vec::new(),
    };
    let stdin = match &launch.stdin {
        Some(bytes) => Some(
            leader::stdin_file(bytes)
                .map_err(not_made("standard input"))
                .map_err(abandon)?,
        ),
        None => None,
    };
    let (stderr_read, stderr_write) = stderr.unzip();
    let inherited = Inherited {
        stdin,
        stdout: stdout.1,
        stderr: stderr_write,
        group: group.as_ref(),
        original_nofile: host.original_nofile,
    };
    let forked = leader::fork(&launch, inherited, &mut record, &facts).map_err(|failure| {
        if let Some(group) = &group {
            let _ = group.remove();
        }
        abandon(failure)
    })?;
    for pipe in [Some(&stdout.0), stderr_read.as_ref(), Some(&control)]
        .into_iter()
        .flatten()
    {
        set_nonblocking(pipe).map_err(not_made("the pipes"))?;
    }
    let output = directory.try_clone().map_err(not_made("the output"))?;
    Ok(Monitor {
        tree: Tree::new(me.pid, group),
        leader: forked.pid,
        leader_reaped: false,
        left_behind_told: false,
        signals,
        timer: None,
        status: Some(forked.status),
        stdout: Some(stdout.0),
        stderr: stderr_read,
        output: output::Writer::new(output, launch.plan.output),
        output_retry_at: None,
        control: Some(control),
        listener: None,
        unsent: false,
        kill: None,
        facts,
        record,
        directory,
    })
}

/// Own session, subreaper, own name, own signals, and no descriptor of anybody else.
fn become_monitor(host: &Host, descriptors: &Descriptors) -> io::Result<SignalFd> {
    nix::unistd::setsid()?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"procession-mon")?;
    let Descriptors {
        control,
        launch,
        stdout,
        stderr,
    } = descriptors;
    let mut keep = vec![&host.jobs, control, launch, &stdout.0, &stdout.1];
    if let Some((read, write)) = stderr {
        keep.extend([read, write]);
    }
    let keep: Vec<_> = keep.into_iter().map(AsRawFd::as_raw_fd).collect();
    sys::close_fds_except(&keep)?;
    let mut mask = SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGCHLD);
    mask.add(nix::sys::signal::Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    for number in [1, 2, 3, 13, 25] {
        // HUP, INT, QUIT and PIPE: a monitor ends when its job has ended. XFSZ: a full file is an error.
        sys::ignore_signal(Signal::from_number(number).unwrap_or(Signal::CONT));
    }
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

fn read_launch(file: OwnedFd) -> io::Result<Launch> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    wire::decode(&bytes)
}

fn make_group(host: &Host, launch: &Launch) -> Result<Option<crate::cgroup::Group>, SpawnFailure> {
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

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Monitor {
    fn serve(&mut self) -> io::Result<()> {
        while self.facts.life.phase() != Phase::Ended {
            let ready = self.wait()?;
            let now = Now::read();
            for descriptor in ready {
                self.take(descriptor, now)?;
            }
            self.on_time(now)?;
            if self.unsent {
                self.send_record();
            }
        }
        self.finish()
    }

    fn wait(&mut self) -> io::Result<Vec<Ready>> {
        self.arm_timer()?;
        let output_waits = self.output_retry_at.is_some();
        let mut descriptors: Vec<(Ready, BorrowedFd<'_>, PollFlags)> =
            vec![(Ready::Signal, self.signals.as_fd(), PollFlags::POLLIN)];
        let readable = [
            (Ready::Status, self.status.as_ref()),
            (
                Ready::Stdout,
                self.stdout.as_ref().filter(|_| !output_waits),
            ),
            (
                Ready::Stderr,
                self.stderr.as_ref().filter(|_| !output_waits),
            ),
            (Ready::Listener, self.listener.as_ref()),
        ];
        for (ready, fd) in readable {
            descriptors.extend(fd.map(|fd| (ready, fd.as_fd(), PollFlags::POLLIN)));
        }
        if let Some(control) = &self.control {
            let writable = if self.unsent {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            descriptors.push((
                Ready::Control,
                control.as_fd(),
                PollFlags::POLLIN | writable,
            ));
        }
        if let Some(timer) = &self.timer {
            descriptors.push((Ready::Timer, timer.as_fd(), PollFlags::POLLIN));
        }
        let mut polled: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(descriptors
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| is_ready(fd))
            .map(|((ready, ..), _)| *ready)
            .collect())
    }

    /// The next moment at which something is due, on the clock that a suspended machine does not stop.
    fn arm_timer(&mut self) -> io::Result<()> {
        let due = [
            self.facts.life.wake_at(),
            self.kill.map(|kill| kill.next),
            self.output_retry_at,
        ];
        let Some(due) = due.into_iter().flatten().min() else {
            self.timer = None;
            return Ok(());
        };
        if self.timer.is_none() {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            self.timer = Some(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?);
        }
        if let Some(timer) = &self.timer {
            // Zero would disarm it.
            let at = due.since_boot().max(Duration::from_nanos(1));
            timer.set(
                Expiration::OneShot(at.into()),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?;
        }
        Ok(())
    }

    fn take(&mut self, descriptor: Ready, now: Now) -> io::Result<()> {
        match descriptor {
            Ready::Signal => self.on_signals(now),
            Ready::Status => self.on_status(now),
            Ready::Stdout => self.pump(Stream::Stdout, now),
            Ready::Stderr => self.pump(Stream::Stderr, now),
            Ready::Control => self.on_control(now),
            Ready::Listener => self.on_listener(),
            Ready::Timer => Ok(()),
        }
    }

    fn on_signals(&mut self, now: Now) -> io::Result<()> {
        let mut asked_to_end = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            asked_to_end |= i32::try_from(signal.ssi_signo) == Ok(Signal::TERM.number());
        }
        self.reap(now)?;
        if asked_to_end {
            // The supervisor's way when there is no server; a repeat means at once.
            let force = matches!(self.facts.life.phase(), Phase::Terminating { .. });
            let _ = self.stop(
                Stop {
                    force,
                    ..Stop::for_cause(Cause::Shutdown)
                },
                now,
            )?;
        }
        Ok(())
    }

    /// The leader reports, or has become the program.
    fn on_status(&mut self, now: Now) -> io::Result<()> {
        let Some(status) = self.status.take() else {
            return Ok(());
        };
        match leader::read_report(status) {
            Some(Report::Executing(leader)) => {
                self.facts.leader = Some(leader);
                self.apply(Event::Started, now)
            }
            Some(Report::Failed(failure)) => self.not_spawned(failure, now),
            None if self.facts.life.phase() == Phase::Starting => {
                let message =
                    "failed to execute the program: the new process was killed before it could"
                        .to_owned();
                self.not_spawned(
                    SpawnFailure {
                        stage: Stage::Exec,
                        errno: 0,
                        message,
                    },
                    now,
                )
            }
            None => Ok(()),
        }
    }

    fn not_spawned(&mut self, failure: SpawnFailure, now: Now) -> io::Result<()> {
        // It has reported and is on its way out; whatever its exit code is, it is not the program's.
        while matches!(sys::wait(WaitTarget::Child(self.leader), true), Ok(None)) {
            let mut child = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut child, PollTimeout::from(100_u8));
        }
        self.leader_reaped = true;
        self.stdout = None;
        self.stderr = None;
        self.apply(Event::SpawnFailed(failure), now)
    }

    /// Collects every process that has ended. The leader's end is recorded before its number is free.
    fn reap(&mut self, now: Now) -> io::Result<()> {
        if self.facts.life.phase() == Phase::Ended {
            return Ok(());
        }
        loop {
            match sys::wait(WaitTarget::Any, false) {
                Err(Errno::ECHILD) => return self.on_no_children(now),
                Err(errno) => return Err(errno.into()),
                Ok(None) => break,
                Ok(Some(ended)) if ended.pid == self.leader && !self.leader_reaped => {
                    if self.status.is_some() {
                        self.on_status(now)?;
                        if self.leader_reaped {
                            return Ok(());
                        }
                    }
                    let oom_killed = self.tree.group().and_then(crate::cgroup::Group::oom_killed);
                    let exit = Exit {
                        status: exit_status(ended.end),
                        at: now.wall,
                        oom_killed,
                    };
                    self.apply(Event::LeaderExited(exit), now)?;
                    sys::wait(WaitTarget::Child(ended.pid), true)?;
                    self.leader_reaped = true;
                }
                Ok(Some(ended)) => {
                    sys::wait(WaitTarget::Child(ended.pid), true)?;
                }
            }
        }
        if self.leader_reaped && !self.left_behind_told {
            self.left_behind_told = true;
            let remaining = u32::try_from(self.tree.members().len()).unwrap_or(u32::MAX);
            self.apply(Event::LeftBehind(remaining), now)?;
        }
        Ok(())
    }

    /// `ECHILD`: nothing is left beneath the monitor. With a cgroup, it must agree.
    fn on_no_children(&mut self, now: Now) -> io::Result<()> {
        if self.tree.is_group_populated() {
            if !self.left_behind_told {
                self.left_behind_told = true;
                let remaining = u32::try_from(self.tree.members().len()).unwrap_or(u32::MAX);
                self.apply(Event::LeftBehind(remaining), now)?;
            }
            // Nobody announces the end of a process that is not ours: look again.
            let kill = self.kill.get_or_insert(Kill {
                since: now.boot,
                next: now.boot,
                pause: SWEEP_FIRST,
            });
            kill.next = now.boot.after(kill.pause);
            return Ok(());
        }
        self.kill = None;
        self.apply(Event::Emptied, now)?;
        // What the job wrote last is in the pipes by now, and usually their end as well.
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.pipe(stream).is_some() && self.pump_once(stream, now)? {}
        }
        self.tell_output_closed(now)
    }

    fn pipe(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    fn pump(&mut self, stream: Stream, now: Now) -> io::Result<()> {
        self.pump_once(stream, now)?;
        self.tell_output_closed(now)
    }

    /// One step from a pipe to the log; is there more at once?
    fn pump_once(&mut self, stream: Stream, now: Now) -> io::Result<bool> {
        let pipe = match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        };
        let Some(pipe) = pipe else { return Ok(false) };
        let more = match self.output.pump(stream, pipe.as_fd(), now.wall) {
            Ok(Pumped::Moved(_)) => true,
            // `Blocked`: the other pipe comes first, and is ready too.
            Ok(Pumped::Empty | Pumped::Blocked) => false,
            Ok(Pumped::Closed) => {
                match stream {
                    Stream::Stdout => self.stdout = None,
                    Stream::Stderr => self.stderr = None,
                }
                false
            }
            // A full or failing disk leaves the bytes in the pipe, and the job waits.
            Err(_) => {
                self.output_retry_at = Some(now.boot.after(OUTPUT_RETRY));
                false
            }
        };
        if self.output.limit_reached() && self.facts.life.plan().output.on_limit == OnLimit::StopJob
        {
            self.apply(Event::OutputLimitReached, now)?;
        }
        Ok(more)
    }

    fn tell_output_closed(&mut self, now: Now) -> io::Result<()> {
        if self.stdout.is_none() && self.stderr.is_none() {
            self.apply(Event::OutputClosed, now)?;
        }
        Ok(())
    }

    fn on_time(&mut self, now: Now) -> io::Result<()> {
        if self.output_retry_at.is_some_and(|at| at <= now.boot) {
            self.output_retry_at = None;
        }
        if let Some(kill) = self.kill
            && kill.next <= now.boot
        {
            self.sweep(kill, now)?;
        }
        self.apply(Event::Tick, now)
    }

    /// Takes one event to the state machine and does what it says.
    fn apply(&mut self, event: Event, now: Now) -> io::Result<()> {
        let before = self.facts.life.clone();
        let effect = self.facts.life.on(event, now);
        if self.facts.life != before {
            self.changed(now)?;
        }
        self.carry_out(effect, now)
    }

    fn carry_out(&mut self, effect: Option<Effect>, now: Now) -> io::Result<()> {
        match effect {
            None | Some(Effect::Finish) => Ok(()),
            Some(Effect::Terminate { signal, scope }) => {
                self.tree
                    .terminate(signal, scope, self.leader, self.leader_reaped);
                Ok(())
            }
            Some(Effect::TerminateRest { signal, reached }) => {
                self.tree.terminate_rest(signal, reached, self.leader);
                Ok(())
            }
            Some(Effect::Kill) => {
                let kill = Kill {
                    since: now.boot,
                    next: now.boot,
                    pause: SWEEP_FIRST,
                };
                if self.tree.kill_group() {
                    // The subreaper's own sweep follows only where this was not enough.
                    self.kill = Some(Kill {
                        next: now.boot.after(SWEEP_FIRST),
                        ..kill
                    });
                    return Ok(());
                }
                self.sweep(kill, now)
            }
        }
    }

    fn sweep(&mut self, kill: Kill, now: Now) -> io::Result<()> {
        let pause = (kill.pause * 2).min(SWEEP_MOST);
        self.kill = Some(Kill {
            next: now.boot.after(kill.pause),
            pause,
            ..kill
        });
        if self.facts.life.phase() == Phase::Killing {
            self.tree.kill_group();
            let left = self.tree.kill();
            if kill.since.after(SURVIVORS_AFTER) <= now.boot {
                let survivors = tree::survivors(&left, SURVIVORS_NAMED);
                if survivors != self.facts.survivors {
                    self.facts.survivors = survivors;
                    self.changed(now)?;
                }
            }
        }
        self.reap(now)
    }

    /// The record on disk first, then the word to the server.
    fn changed(&mut self, now: Now) -> io::Result<()> {
        self.facts.deadline_at = self.facts.life.timeout_at().map(|at| now.wall_of(at));
        self.facts.output = self.output.totals();
        if self.facts.life.phase() == Phase::Ended {
            return Ok(()); // `finish` writes the last record, with the usage and the complete output.
        }
        self.write_record()?;
        self.send_record();
        Ok(())
    }

    fn write_record(&mut self) -> io::Result<()> {
        self.record.write(&self.facts)
    }

    fn send_record(&mut self) {
        let message = FromMonitor::Record(Box::new(self.facts.clone()));
        self.send(&message);
    }

    fn send(&mut self, message: &FromMonitor) {
        let Some(control) = &self.control else { return };
        match wire::send(control.as_fd(), message, &[]) {
            Ok(()) => self.unsent = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent = true,
            Err(_) => self.server_gone(),
        }
    }

    fn on_control(&mut self, now: Now) -> io::Result<()> {
        loop {
            let Some(control) = &self.control else {
                return Ok(());
            };
            match wire::receive::<ToMonitor>(control.as_fd()) {
                Ok(Received::Message(message, _)) => {
                    let result = self.answer(message.request, now)?;
                    self.send(&FromMonitor::Reply {
                        ticket: message.ticket,
                        result,
                    });
                }
                Ok(Received::Closed) => {
                    self.server_gone();
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(job.id = %self.facts.job, %error, "a request for job {} was not understood", self.facts.job);
                }
                Err(_) => {
                    self.server_gone();
                    return Ok(());
                }
            }
        }
    }

    fn answer(&mut self, request: Request, now: Now) -> io::Result<Result<u32, RequestRefused>> {
        // What has ended already has ended by itself.
        self.reap(now)?;
        match request {
            Request::Stop(stop) => self.stop(stop, now),
            Request::Signal { signal, scope } => match self.facts.life.may_signal() {
                Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
                Verdict::Do(_) | Verdict::Already => Ok(told(self.tree.signal(
                    signal,
                    scope,
                    self.leader,
                    self.leader_reaped,
                ))),
            },
            Request::Pause => {
                let verdict = self.facts.life.pause(now);
                self.pause_or_resume(verdict, Tree::freeze, now)
            }
            Request::Resume => {
                let verdict = self.facts.life.resume(now);
                self.pause_or_resume(verdict, Tree::thaw, now)
            }
        }
    }

    fn stop(&mut self, stop: Stop, now: Now) -> io::Result<Result<u32, RequestRefused>> {
        let before = self.facts.life.clone();
        let verdict = self.facts.life.stop(stop, now);
        if self.facts.life != before {
            self.changed(now)?;
        }
        match verdict {
            Verdict::Do(effect) => {
                self.carry_out(effect, now)?;
                Ok(Ok(0))
            }
            Verdict::Already => Ok(Ok(0)),
            Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
        }
    }

    fn pause_or_resume(
        &mut self,
        verdict: Verdict,
        act: fn(&Tree) -> Delivery,
        now: Now,
    ) -> io::Result<Result<u32, RequestRefused>> {
        match verdict {
            Verdict::Do(_) => {
                let delivery = act(&self.tree);
                self.changed(now)?;
                Ok(told(delivery))
            }
            Verdict::Already => Ok(Ok(0)),
            Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
        }
    }

    /// The server has died or is being replaced: wait for the next one in the job's directory.
    fn server_gone(&mut self) {
        self.control = None;
        self.unsent = false;
        if self.listener.is_none() {
            match listen(&self.directory) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => {
                    tracing::error!(job.id = %self.facts.job, %error, "the monitor of job {} cannot be reached any more", self.facts.job);
                }
            }
        }
    }

    fn on_listener(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        match socket::accept4(
            listener.as_raw_fd(),
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        ) {
            Ok(fd) => {
                self.control = sys::adopt_fd(fd);
                self.listener = None;
                let _ = unlinkat(
                    self.directory.as_fd(),
                    record::CONTROL_SOCKET,
                    UnlinkatFlags::NoRemoveDir,
                );
                self.send_record();
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The job is over: its output is synced, its last record written, its cgroup removed, the server told.
    fn finish(&mut self) -> io::Result<()> {
        if let Err(error) = self.output.sync() {
            tracing::warn!(job.id = %self.facts.job, %error, "the output of job {} may not be on disk: {error}", self.facts.job);
        }
        self.facts.output = OutputTotals {
            complete: true,
            ..self.output.totals()
        };
        self.facts.survivors.clear();
        self.facts.deadline_at = None;
        self.facts.usage = self
            .facts
            .life
            .spawn_failure()
            .is_none()
            .then(usage)
            .flatten();
        self.write_record()?;
        if let Some(group) = self.tree.group() {
            let _ = group.remove();
        }
        self.send_record();
        if self.unsent
            && let Some(control) = &self.control
        {
            let mut writable = [PollFd::new(control.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut writable, PollTimeout::from(1000_u16));
            self.send_record();
        }
        Ok(())
    }
}

fn told(delivery: Delivery) -> Result<u32, RequestRefused> {
    match delivery {
        Delivery {
            delivered: 0,
            refused: Some(errno),
        } => Err(RequestRefused::Errno(sys::errno_number(errno))),
        Delivery { delivered, .. } => Ok(delivered),
    }
}

fn exit_status(end: End) -> ExitStatus {
    match end {
        End::Code(code) => ExitStatus::Code(code),
        End::Signal {
            number,
            core_dumped,
        } => ExitStatus::Signal {
            signal: Signal::from_number(number).unwrap_or(Signal::KILL),
            core_dumped,
        },
    }
}

fn usage() -> Option<Usage> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let seconds = |micros: i64| {
        Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64()
    };
    Some(Usage {
        user_cpu_seconds: seconds(usage.user_time().num_microseconds()),
        system_cpu_seconds: seconds(usage.system_time().num_microseconds()),
        // Linux counts it in kibibytes (getrusage(2)).
        max_rss_bytes: u64::try_from(usage.max_rss())
            .unwrap_or_default()
            .saturating_mul(1024),
    })
}

fn listen(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let _ = unlinkat(
        directory.as_fd(),
        record::CONTROL_SOCKET,
        UnlinkatFlags::NoRemoveDir,
    );
    // The address has room for 108 bytes, whatever the length of the state directory's path.
    let path = format!(
        "/proc/self/fd/{}/{}",
        directory.as_raw_fd(),
        record::CONTROL_SOCKET
    );
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    socket::listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}
