//! The monitor of a job: one thread, a subreaper, forked from the supervisor and never executed.
//!
//! It owns the job's processes, output and record: next event → pure state machine → effect. It knows no
//! store and no HTTP, and goes on when the server or the supervisor dies. When its job has ended, and no
//! process is left beneath it, it may be given another.

mod control;
mod descriptors;
mod idle;
mod input;
mod launch;
mod leader;
mod pump;
mod reaping;
mod rescue;
mod terminal;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::rlim_t;
use nix::sys::signalfd::SignalFd;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use control::Outbox;
pub(crate) use descriptors::{Descriptors, Pipes};
use idle::Idle;
pub(crate) use idle::Note;
use input::Stdin;
use job::life::{Effect, Event, Phase, Stop};
use job::outcome::{Cause, Usage};
use job::time::{BootInstant, Now};
use job::{OutputTotals, Signal};
use leader::Starting;
use linux::cgroup::Home;
use linux::clock;
use linux::failpoint;
use linux::sys::child::Stack;
use linux::sys::{self, Pid};
use linux::tree::{self, Tree};
use protocol::output::{self, Stream};
use protocol::record::{self, Record};
use pump::Width;
pub(crate) use reaping::exit_status;
pub(crate) use rescue::{Remains, run as rescue};
use terminal::Terminal;

/// How soon a kill is repeated while something is left, at first and at most.
const SWEEP_FIRST: Duration = Duration::from_millis(20);
const SWEEP_MOST: Duration = Duration::from_secs(1);

/// After so long a kill names those that it could not end.
const SURVIVORS_AFTER: Duration = Duration::from_secs(5);

/// The most survivors that are named.
const SURVIVORS_NAMED: usize = 16;

/// The most processes without a trace that a record names.
const STRAYS_NAMED: usize = 64;

/// How soon output is tried again after the disk refused it.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// After so long without an event, a monitor gives back what its start has used.
const REST_AFTER_MILLIS: u16 = 1000;

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
    /// Where a monitor says that its job is over and that it could take another: a pipe that does not block.
    pub(crate) idle: OwnedFd,
}

/// Runs a monitor in the process that has just been forked for it: job after job, for as long as the
/// supervisor on the other side of `channel` has another.
pub(crate) fn run(host: &Host, channel: OwnedFd, descriptors: Descriptors) -> ! {
    let idle = match launch::become_monitor(host, channel, &descriptors) {
        Ok(idle) => idle,
        Err(error) => {
            launch::refuse(&descriptors.control, launch::not_made("the monitor")(error));
            sys::exit_now(0)
        }
    };
    let mut descriptors = Some(descriptors);
    while let Some(given) = descriptors {
        let Ok(mut monitor) = launch::start(host, &idle, given) else {
            sys::exit_now(0)
        };
        if let Err(error) = monitor.serve() {
            tracing::error!(job.id = %monitor.facts.job, %error, "monitor of job {} failed: {error}", monitor.facts.job);
            sys::exit_now(1)
        }
        let job = monitor.facts.job;
        // All that it had is let go of, its lock and its socket included, before it may have another.
        drop(monitor);
        descriptors = idle.next(host, job);
    }
    sys::exit_now(0)
}

/// Who collects the job's processes when they end.
enum Reaper {
    /// This monitor: it is their subreaper.
    Own,
    /// The supervisor, since the monitor that was their subreaper is dead. It tells of the leader's end
    /// over this socket; `None` when it is dead, too.
    Supervisor(Option<OwnedFd>),
}

struct Monitor {
    facts: Record,
    record: record::Writer,
    directory: OwnedFd,
    tree: Tree,
    reaper: Reaper,
    leader: Pid,
    /// Its number may be somebody else's by now.
    leader_reaped: bool,
    /// It has ended, as far as anybody can tell.
    leader_gone: bool,
    left_behind_told: bool,
    /// What the processes have used that were reaped here.
    used: sys::Usage,
    signals: Rc<SignalFd>,
    timer: Option<TimerFd>,
    /// The leader before it is the program.
    starting: Option<Starting>,
    /// Where it began.
    stack: Option<Rc<Stack>>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<Terminal>,
    output: output::Writer,
    output_retry_at: Option<BootInstant>,
    control: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    outbox: Outbox,
    stdin: Stdin,
    kill: Option<Kill>,
    /// The memory that the start has used was given back.
    is_at_rest: bool,
    width: Width,
}

/// A kill under way.
#[derive(Clone, Copy, Debug)]
struct Kill {
    since: BootInstant,
    next: BootInstant,
    pause: Duration,
}

/// Which descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Signal,
    Status,
    Stdout,
    Stderr,
    Terminal,
    Control,
    Listener,
    Reaper,
    Stdin,
    Timer,
}

impl Monitor {
    fn serve(&mut self) -> io::Result<()> {
        while self.facts.life.phase() != Phase::Ended {
            let ready = self.wait()?;
            let now = clock::now();
            for descriptor in ready {
                self.take(descriptor, now)?;
            }
            self.on_time(now)?;
            self.outbox.output = self
                .outbox
                .watched
                .then(|| self.output.totals().next_offset);
            self.flush();
        }
        self.finish()
    }

    /// Which descriptors are ready; none of them where it was time for a rest.
    fn wait(&mut self) -> io::Result<Vec<Ready>> {
        self.arm_timer()?;
        let output_waits = self.output_retry_at.is_some();
        let mut descriptors: Vec<(Ready, BorrowedFd<'_>, PollFlags)> =
            vec![(Ready::Signal, self.signals.as_fd(), PollFlags::POLLIN)];
        // Before what the program may have written already.
        if let Some(starting) = &self.starting {
            // Only that it hangs up is of interest, which needs no asking for (poll(2)).
            descriptors.push((Ready::Status, starting.status(), PollFlags::empty()));
        }
        let readable = [
            (
                Ready::Stdout,
                self.stdout.as_ref().filter(|_| !output_waits),
            ),
            (
                Ready::Stderr,
                self.stderr.as_ref().filter(|_| !output_waits),
            ),
            (Ready::Terminal, self.awaited_terminal()),
            (Ready::Listener, self.listener.as_ref()),
            (Ready::Reaper, self.reaper_socket()),
        ];
        for (ready, fd) in readable {
            descriptors.extend(fd.map(|fd| (ready, fd.as_fd(), PollFlags::POLLIN)));
        }
        if let Some(control) = &self.control {
            let writable = if self.outbox.is_full {
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
        if let Some(pipe) = self.stdin.awaited() {
            descriptors.push((Ready::Stdin, pipe.as_fd(), PollFlags::POLLOUT));
        }
        if let Some(timer) = &self.timer {
            descriptors.push((Ready::Timer, timer.as_fd(), PollFlags::POLLIN));
        }
        let mut polled: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        let patience = if self.is_at_rest {
            PollTimeout::NONE
        } else {
            PollTimeout::from(REST_AFTER_MILLIS)
        };
        let is_quiet = match poll(&mut polled, patience) {
            Ok(count) => count == 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ready = descriptors
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| is_ready(fd))
            .map(|((ready, ..), _)| *ready)
            .collect();
        if is_quiet {
            if let Some(stack) = &self.stack {
                stack.give_back();
            }
            sys::give_back_memory();
            self.is_at_rest = true;
        }
        Ok(ready)
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
            Ready::Stdout | Ready::Terminal => self.pump(Stream::Stdout, now),
            Ready::Stderr => self.pump(Stream::Stderr, now),
            Ready::Control => self.on_control(now),
            Ready::Listener => self.on_listener(),
            Ready::Reaper => self.reap(now),
            Ready::Stdin => self.write_input(now),
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
        // A rescuer finds the pipes closed by itself, and the server does not care.
        let is_news = event != Event::OutputClosed;
        let before = self.facts.life.clone();
        let effect = self.facts.life.on(event, now);
        if self.facts.life != before && (is_news || self.facts.life.phase() == Phase::Ended) {
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
            self.outbox.is_held = true;
            return Ok(()); // `finish` writes the last record, with the usage and the complete output.
        }
        self.write_record()?;
        // Told at the end of this round, before any reply: a short job has its end to tell by then.
        self.outbox.record = true;
        Ok(())
    }

    fn write_record(&mut self) -> io::Result<()> {
        if self.starting.is_some() && self.facts.life.phase() == Phase::Starting {
            // Its leader may be the program before this monitor knows, and its rescuer has to.
            return leader::write_ahead(&mut self.record, &self.facts);
        }
        self.record.write(&self.facts)
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
        // Only the one that reaps is told what was used.
        let is_known =
            self.facts.life.spawn_failure().is_none() && matches!(self.reaper, Reaper::Own);
        self.facts.usage = is_known.then(|| usage_of(self.used));
        failpoint::hit("end.recording");
        self.write_record()?;
        failpoint::hit("end.recorded");
        if let Some(group) = self.tree.group() {
            let _ = group.remove();
        }
        self.outbox.watched = false;
        self.outbox.is_held = false;
        self.send_record();
        if self.outbox.is_full
            && let Some(control) = &self.control
        {
            let mut writable = [PollFd::new(control.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut writable, PollTimeout::from(1000_u16));
            self.flush();
        }
        failpoint::hit("end.told");
        Ok(())
    }
}

fn usage_of(used: sys::Usage) -> Usage {
    Usage {
        user_cpu_seconds: used.user.as_secs_f64(),
        system_cpu_seconds: used.system.as_secs_f64(),
        max_rss_bytes: used.max_rss_bytes,
    }
}
