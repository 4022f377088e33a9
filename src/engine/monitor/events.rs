//! What happens to a job, and what its monitor does then: ends, output, input, requests and signals.

use std::io;

use nix::errno::Errno;

use super::Monitor;
use super::between_jobs::is_asked_to_end;
use super::leader::Outcome;
use super::processes::{Seen, exit_status};
use job::life::{Event, Life, Phase, Stop, Verdict};
use job::outcome::{Cause, Exit, ExitStatus, SpawnFailure, Stage};
use job::spec::OnLimit;
use job::time::Now;
use linux::failpoint;
use linux::sys;
use linux::tree::{Delivery, Tree};
use protocol::output::{Stream, sizes};
use protocol::record;
use protocol::wire::messages::{FromMonitor, Request, RequestRefused};

/// What a request came to: a number that depends on it, or why not.
type Answer = Result<u64, RequestRefused>;

impl Monitor {
    pub(super) fn on_signals(&mut self, now: Now) -> io::Result<()> {
        let asked_to_end = is_asked_to_end(&self.signals);
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

    /// The leader has become the program, or it has ended.
    pub(super) fn on_status(&mut self, now: Now) -> io::Result<()> {
        let Some(starting) = self.processes.starting.take() else {
            return Ok(());
        };
        match starting.outcome() {
            Err(starting) => {
                self.processes.starting = Some(starting);
                Ok(())
            }
            Ok(Outcome::Executed(leader)) => {
                failpoint::hit("start.recording");
                self.facts.leader = Some(leader);
                let applied = self.apply(Event::Started, now);
                failpoint::hit("start.recorded");
                applied
            }
            Ok(Outcome::Failed(failure)) => self.not_spawned(failure, now),
            Ok(Outcome::Killed) if self.facts.life.phase() == Phase::Starting => {
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
            Ok(Outcome::Killed) => Ok(()),
        }
    }

    fn not_spawned(&mut self, failure: SpawnFailure, now: Now) -> io::Result<()> {
        self.processes.discard_leader(&self.signals);
        self.pump.close();
        self.apply(Event::SpawnFailed(failure), now)
    }

    /// Takes in which processes have ended.
    pub(super) fn reap(&mut self, now: Now) -> io::Result<()> {
        if self.facts.life.phase() == Phase::Ended {
            return Ok(());
        }
        if self.processes.is_reaper() {
            self.reap_own(now)
        } else {
            self.hear_of_ends(now)
        }
    }

    /// Collects every process that has ended. The leader's end is recorded before its number is free.
    fn reap_own(&mut self, now: Now) -> io::Result<()> {
        loop {
            match self.processes.look()? {
                Seen::NobodyLeft => return self.on_no_children(now),
                Seen::Nothing => break,
                Seen::LeaderEnded(end) => {
                    if self.processes.starting.is_some() {
                        self.on_status(now)?;
                        if self.processes.is_leader_reaped() {
                            return Ok(());
                        }
                    }
                    failpoint::hit("exit.recording");
                    self.leader_exited(exit_status(end), now)?;
                    failpoint::hit("exit.recorded");
                    self.processes.collect_leader()?;
                    failpoint::hit("leader.reaped");
                    self.processes.leader_is_free();
                }
            }
        }
        if self.processes.is_leader_reaped() {
            self.report_left_behind(now)?;
        }
        Ok(())
    }

    fn leader_exited(&mut self, status: ExitStatus, now: Now) -> io::Result<()> {
        let exit = Exit {
            status,
            at: now.wall,
            oom_killed: self.processes.oom_killed(),
        };
        self.apply(Event::LeaderExited(exit), now)
    }

    fn report_left_behind(&mut self, now: Now) -> io::Result<()> {
        match self.processes.count_left_behind() {
            Some(remaining) => self.apply(Event::LeftBehind(remaining), now),
            None => Ok(()),
        }
    }

    /// The supervisor reaps: it says how the leader ended, and `/proc` says what is left.
    fn hear_of_ends(&mut self, now: Now) -> io::Result<()> {
        while let Some(status) = self.processes.hear()? {
            if self.never_ran(now)? {
                return Ok(());
            }
            self.leader_exited(status, now)?;
            self.processes.leader_has_ended();
        }
        if self.processes.is_unheard() {
            // Nobody can say any more how it will end; that it has ended can still be seen.
            if !self.processes.tree.has_leader() {
                self.processes.leader_has_ended();
                if self.never_ran(now)? {
                    return Ok(());
                }
            }
            self.processes.look_again(now.boot);
        }
        if !self.processes.is_leader_gone() {
            return Ok(());
        }
        if self.processes.tree.members().is_empty() {
            return self.on_no_children(now);
        }
        self.report_left_behind(now)?;
        // Nobody announces the end of a process that is not ours: look again.
        self.processes.look_again(now.boot);
        Ok(())
    }

    /// Has the leader, which has ended, said that it executed nothing? Then its exit code is not the
    /// program's. The one who should have heard it is dead.
    fn never_ran(&mut self, now: Now) -> io::Result<bool> {
        let Some(failure) = self.record.last_word() else {
            return Ok(false);
        };
        if record::is_orphaned(&failure) {
            // The server finds the word, and launches the job again.
            return Err(io::Error::other("its leader gave up without its monitor"));
        }
        self.pump.close();
        self.facts.leader = None;
        self.facts.life = Life::new(self.facts.life.plan().clone());
        self.apply(Event::SpawnFailed(failure), now)?;
        Ok(true)
    }

    /// `ECHILD`: nothing is left beneath the monitor. With a cgroup, it must agree.
    fn on_no_children(&mut self, now: Now) -> io::Result<()> {
        if self.processes.tree.is_group_populated() {
            self.report_left_behind(now)?;
            self.processes.look_again(now.boot);
            return Ok(());
        }
        self.processes.end_kill();
        if let Some(terminal) = self.pump.terminal() {
            terminal.let_go();
        }
        self.apply(Event::Emptied, now)?;
        self.pump.take_the_rest();
        // What the job wrote last is in the pipes by now, and usually their end as well.
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.pump.is_open(stream) && self.pump_once(stream, now)? {}
        }
        self.report_output_closed(now)
    }

    pub(super) fn on_output(&mut self, stream: Stream, now: Now) -> io::Result<()> {
        self.pump_once(stream, now)?;
        self.report_output_closed(now)
    }

    fn pump_once(&mut self, stream: Stream, now: Now) -> io::Result<bool> {
        if !self.pump.is_open(stream) {
            return Ok(false);
        }
        let more = self.pump.step(stream, now);
        self.report_refusal();
        if self.pump.limit_reached() && self.facts.life.plan().output.on_limit == OnLimit::StopJob {
            self.apply(Event::OutputLimitReached, now)?;
        }
        Ok(more)
    }

    /// Once, and once more when it is over: the disk takes no output.
    fn report_refusal(&mut self) {
        let refusal = self.pump.refusal();
        if refusal == self.facts.output_refused {
            return;
        }
        self.facts.output_refused = refusal;
        let job = self.facts.job;
        match refusal {
            Some(errno) => {
                let why = Errno::from_raw(errno).desc();
                tracing::warn!(job.id = %job, "the output of job {job} cannot be written down: {why}; the job waits");
            }
            None => {
                tracing::info!(job.id = %job, "the output of job {job} is written down again");
            }
        }
        // On a disk that takes nothing at all, what there is has to do.
        let _ = self.write_record();
        self.server.record_changed();
    }

    /// Whether the job waits until its output is read: to the server at once, to the record when it lasts.
    pub(super) fn report_full(&mut self) {
        self.server.output_is_full(self.pump.is_full());
        let waits = self.pump.is_long_full();
        if waits != self.facts.output_waits && self.facts.life.phase() != Phase::Ended {
            self.facts.output_waits = waits;
            // On a disk that takes nothing at all, what there is has to do.
            let _ = self.write_record();
            self.server.record_changed();
        }
    }

    fn report_output_closed(&mut self, now: Now) -> io::Result<()> {
        if self.pump.is_closed() {
            self.apply(Event::OutputClosed, now)?;
        }
        Ok(())
    }

    /// Writes what the pipe of standard input takes.
    pub(super) fn on_input(&mut self, now: Now) -> io::Result<()> {
        let was_open = self.stdin.is_open();
        while let Some(reply) = self.stdin.write(&self.record, self.pump.terminal()) {
            self.server.reply(reply);
        }
        if was_open && !self.stdin.is_open() {
            self.facts.stdin_closed = true;
            self.changed(now)?;
        }
        self.flush();
        Ok(())
    }

    pub(super) fn on_requests(&mut self, now: Now) -> io::Result<()> {
        while let Some(message) = self.server.receive(self.facts.job, &self.directory) {
            let ticket = message.ticket;
            if let Some(result) = self.answer(ticket, message.request, now)? {
                self.server.reply(FromMonitor::Reply { ticket, result });
                self.flush();
            }
        }
        Ok(())
    }

    /// The answer; `None` if it comes later.
    fn answer(&mut self, ticket: u64, request: Request, now: Now) -> io::Result<Option<Answer>> {
        // What has ended already has ended by itself.
        self.reap(now)?;
        let result = match request {
            Request::Stop(stop) => self.stop(stop, now)?,
            Request::Signal { signal, scope } => match self.facts.life.may_signal() {
                Verdict::Refuse(refusal) => Err(RequestRefused::Refused(refusal)),
                Verdict::Do(_) | Verdict::Already => reached(self.processes.signal(signal, scope)),
            },
            Request::Pause => {
                let verdict = self.facts.life.pause(now);
                self.pause_or_resume(verdict, Tree::freeze, now)?
            }
            Request::Resume => {
                let verdict = self.facts.life.resume(now);
                self.pause_or_resume(verdict, Tree::thaw, now)?
            }
            Request::Amend { timeout, stop } => match self.facts.life.amend(timeout, stop, now) {
                Verdict::Refuse(refusal) => Err(RequestRefused::Refused(refusal)),
                Verdict::Do(_) | Verdict::Already => {
                    self.changed(now)?;
                    Ok(0)
                }
            },
            Request::WatchOutput(watched) => {
                self.server.watch(watched, self.pump.totals().next_offset);
                Ok(0)
            }
            Request::OutputRead(offset) => {
                self.pump.read_up_to(offset);
                for stream in [Stream::Stdout, Stream::Stderr] {
                    self.pump_once(stream, now)?;
                }
                self.report_output_closed(now)?;
                Ok(u64::from(self.pump.is_full()))
            }
            Request::Resize(size) => {
                let resized = match self.pump.terminal() {
                    Some(terminal) => terminal.resize(size).map(|()| 0).map_err(refused),
                    None => Err(refused(Errno::ENOTTY)),
                };
                if resized.is_ok() {
                    // For recordings; what cannot be written is not worth a refusal.
                    let _ = sizes::note(&self.directory, now.wall, size);
                }
                resized
            }
            Request::Stdin(input) => {
                self.stdin.take(ticket, input);
                self.on_input(now)?;
                return Ok(None);
            }
        };
        Ok(Some(result))
    }

    fn stop(&mut self, stop: Stop, now: Now) -> io::Result<Answer> {
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
    ) -> io::Result<Answer> {
        match verdict {
            Verdict::Do(_) => {
                let delivery = act(&self.processes.tree);
                self.changed(now)?;
                Ok(reached(delivery))
            }
            Verdict::Already => Ok(Ok(0)),
            Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
        }
    }
}

fn refused(errno: Errno) -> RequestRefused {
    RequestRefused::Errno(sys::errno_number(errno))
}

fn reached(delivery: Delivery) -> Answer {
    match delivery {
        Delivery {
            delivered: 0,
            refused: Some(errno),
        } => Err(refused(errno)),
        Delivery { delivered, .. } => Ok(delivered.into()),
    }
}
