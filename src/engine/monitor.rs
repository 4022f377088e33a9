//! The monitor of a job: one thread, a subreaper, forked from the supervisor and never executed.
//!
//! It owns the job's processes, output and record: next event → pure state machine → effect. It knows no
//! store and no HTTP, and continues when the server or the supervisor dies. When its job has ended, and no
//! process is left beneath it, it may be given another.

mod between_jobs;
mod conversation;
mod descriptors;
mod events;
mod input;
mod launch;
mod leader;
mod processes;
mod pump;
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

use between_jobs::BetweenJobs;
pub(crate) use between_jobs::Note;
use conversation::Conversation;
pub(crate) use descriptors::{Descriptors, Pipes};
use input::Stdin;
use job::OutputTotals;
use job::life::{Effect, Event, Phase};
use job::time::Now;
use linux::cgroup::Home;
use linux::clock;
use linux::failpoint;
use linux::sys;
use processes::Processes;
pub(crate) use processes::exit_status;
use protocol::output::Stream;
use protocol::record::{self, Record};
use pump::Pump;
pub(crate) use rescue::{Remains, run as rescue};

/// The most processes without a trace that a record names.
const STRAYS_NAMED: usize = 64;

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

struct Monitor {
    facts: Record,
    record: record::Writer,
    directory: OwnedFd,
    processes: Processes,
    pump: Pump,
    stdin: Stdin,
    server: Conversation,
    signals: Rc<SignalFd>,
    timer: Option<TimerFd>,
    /// The memory that the start has used was given back.
    is_at_rest: bool,
    /// Short output goes into the last record.
    keeps_short: bool,
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

/// A descriptor, what of it is waited for, and what it means.
type Awaited<'a> = (Ready, BorrowedFd<'a>, PollFlags);

impl Monitor {
    fn serve(&mut self) -> io::Result<()> {
        while self.facts.life.phase() != Phase::Ended {
            let ready = self.wait()?;
            let now = clock::now();
            for descriptor in ready {
                self.take(descriptor, now)?;
            }
            self.on_time(now)?;
            self.server.output_grew(self.pump.totals().next_offset);
            self.report_full();
            self.flush();
        }
        self.finish()
    }

    /// Which descriptors are ready; none of them if it was time for a rest.
    fn wait(&mut self) -> io::Result<Vec<Ready>> {
        self.arm_timer()?;
        let mut awaited: Vec<Awaited<'_>> =
            vec![(Ready::Signal, self.signals.as_fd(), PollFlags::POLLIN)];
        self.processes.awaited(&mut awaited);
        self.pump.awaited(&mut awaited);
        self.server.awaited(&mut awaited);
        if let Some(pipe) = self.stdin.awaited() {
            awaited.push((Ready::Stdin, pipe.as_fd(), PollFlags::POLLOUT));
        }
        if let Some(timer) = &self.timer {
            awaited.push((Ready::Timer, timer.as_fd(), PollFlags::POLLIN));
        }
        let mut polled: Vec<PollFd<'_>> = awaited
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
        let ready = awaited
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| is_ready(fd))
            .map(|((ready, ..), _)| *ready)
            .collect();
        if is_quiet {
            self.processes.rest();
            sys::give_back_memory();
            self.is_at_rest = true;
        }
        Ok(ready)
    }

    /// The next moment at which something is due, on the clock that a suspended machine does not stop.
    fn arm_timer(&mut self) -> io::Result<()> {
        let due = [
            self.facts.life.wake_at(),
            self.processes.due(),
            self.pump.due(),
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
            Ready::Stdout | Ready::Terminal => self.on_output(Stream::Stdout, now),
            Ready::Stderr => self.on_output(Stream::Stderr, now),
            Ready::Control => self.on_requests(now),
            Ready::Listener => self.server.accept(&self.facts, &self.directory),
            Ready::Reaper => self.reap(now),
            Ready::Stdin => self.on_input(now),
            Ready::Timer => Ok(()),
        }
    }

    fn on_time(&mut self, now: Now) -> io::Result<()> {
        self.pump.on_time(now.boot);
        if self.processes.due().is_some_and(|due| due <= now.boot) {
            self.sweep(now)?;
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
            Some(Effect::Warn { signal, scope }) => {
                // Noted by now: a rescuer does not send it again.
                failpoint::hit("warning.recorded");
                if let Some(signal) = signal {
                    let _ = self.processes.signal(signal, scope);
                }
                failpoint::hit("warning.sent");
                Ok(())
            }
            Some(Effect::Terminate { signal, scope }) => {
                self.processes.terminate(signal, scope);
                Ok(())
            }
            Some(Effect::TerminateRest { signal, reached }) => {
                self.processes.terminate_rest(signal, reached);
                Ok(())
            }
            Some(Effect::Kill) if self.processes.begin_kill(now.boot) => self.sweep(now),
            Some(Effect::Kill) => Ok(()),
        }
    }

    fn sweep(&mut self, now: Now) -> io::Result<()> {
        let is_kill = self.facts.life.phase() == Phase::Killing;
        let survivors = self.processes.sweep(is_kill, now.boot);
        if let Some(survivors) = survivors
            && survivors != self.facts.survivors
        {
            self.facts.survivors = survivors;
            self.changed(now)?;
        }
        self.reap(now)
    }

    /// The record on disk first, then the word to the server.
    fn changed(&mut self, now: Now) -> io::Result<()> {
        self.facts.deadline_at = self.facts.life.timeout_at().map(|at| now.wall_of(at));
        self.facts.output = self.pump.totals();
        if self.facts.life.phase() == Phase::Ended {
            self.server.hold();
            return Ok(()); // `finish` writes the last record, with the usage and the complete output.
        }
        self.write_record()?;
        self.server.record_changed();
        Ok(())
    }

    fn write_record(&mut self) -> io::Result<()> {
        if self.processes.starting.is_some() && self.facts.life.phase() == Phase::Starting {
            // Its leader may be the program before this monitor knows, and its rescuer has to.
            return leader::write_ahead(&mut self.record, &self.facts);
        }
        self.record.write(&self.facts)
    }

    /// Sends the server what its socket takes.
    fn flush(&mut self) {
        self.server.flush(&self.facts, &self.directory);
    }

    /// The job is over: its output is synced or in its last record, that is written, its cgroup removed, the server told.
    fn finish(&mut self) -> io::Result<()> {
        self.facts.short = match self.keeps_short {
            true => self.pump.short().map(Box::new),
            false => None,
        };
        if self.facts.short.is_none() {
            self.sync_output();
        }
        self.facts.output = OutputTotals {
            complete: true,
            ..self.pump.totals()
        };
        self.facts.survivors.clear();
        self.facts.output_refused = None;
        self.facts.output_waits = false;
        self.facts.deadline_at = None;
        let has_run = self.facts.life.spawn_failure().is_none();
        self.facts.usage = self.processes.usage().filter(|_| has_run);
        failpoint::hit("end.recording");
        match self.write_record() {
            // It has no room beside what else there is to say.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.facts.short = None;
                self.sync_output();
                self.write_record()?;
            }
            written => written?,
        }
        failpoint::hit("end.recorded");
        if let Some(group) = self.processes.tree.group() {
            let _ = group.remove();
        }
        self.server.finish(&self.facts, &self.directory);
        failpoint::hit("end.told");
        Ok(())
    }

    fn sync_output(&mut self) {
        if let Err(error) = self.pump.sync() {
            tracing::warn!(job.id = %self.facts.job, %error, "the output of job {} may not be on disk: {error}", self.facts.job);
        }
    }
}
