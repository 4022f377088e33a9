//! The job under its monitor: mirrors what the monitor says and passes on what is asked.
//!
//! How a monitor is made, and how a job gets its slot, is not known here.

use std::collections::HashMap;
use std::ops::ControlFlow::{self, Break, Continue};

use tokio::time::Instant;

use super::requests::{JobRequest, Pending, READERS, Reply, UNANSWERED, refused, send};
use super::{Held, Next, Runner, Stopping, attempts, log, ready, warning};
use crate::adopt::{self, Fate, Origin};
use crate::link::MonitorLink;
use crate::readers::{Telling, more_read};
use crate::readiness::{Seen, Watch};
use crate::shutdown::ShutdownPlan;
use crate::time::until;
use crate::{RequestError, mirror, wake};
use job::State;
use job::amendment::Amendment;
use job::event::What;
use job::life::{Refusal, Stop};
use job::outcome::Cause;
use protocol::record::Record;
use protocol::wire::messages::{FromMonitor, Request, RequestRefused, ToMonitor};

/// The job's directory exists (`EEXIST`): making it is what decides between two launches of one job.
const ALREADY_LAUNCHED: i32 = nix::libc::EEXIST;

/// How following a monitor ended.
pub(super) enum Followed {
    /// The attempt is over, or left to the next server.
    Then(Next),
    /// No program was executed and none will be: it may be launched again. A stop was asked meanwhile.
    NeverStarted(Option<Stopping>),
}

/// What a job under a monitor is woken by.
enum Woken {
    Asked(JobRequest),
    Shutdown,
    Monitor(std::io::Result<Option<FromMonitor>>),
    /// Nobody follows the output any more.
    Unfollowed,
    /// More of the output has been read.
    Read,
    Overdue,
    Look,
    /// It is ready, or is not in time.
    Ready(Seen),
}

/// A job and its monitor.
pub(super) struct Supervised<'a> {
    runner: &'a mut Runner,
    link: MonitorLink,
    /// Requests that the monitor has not answered yet.
    pending: HashMap<u64, Pending>,
    /// For the next monitor: the one that they were meant for was dead already.
    undelivered: Vec<ToMonitor>,
    next_ticket: u64,
    /// When the end of the service kills it.
    kill_at: Option<Instant>,
    /// When to see whether the monitor was stopped, if it has outlived the supervisor that would wake it.
    look_at: Option<Instant>,
    /// The monitor reports growth of the output.
    watching: bool,
    /// What the monitor is told of the readers of the output.
    readers: Telling,
    has_stdin: bool,
    /// Looks whether it is ready.
    ready: Option<Watch>,
}

impl<'a> Supervised<'a> {
    pub(super) fn new(runner: &'a mut Runner, link: MonitorLink) -> Self {
        Self {
            has_stdin: runner.job.spec.takes_input(),
            look_at: (runner.origin == Origin::Inherited).then(|| Instant::now() + wake::LOOK),
            runner,
            link,
            pending: HashMap::new(),
            undelivered: Vec::new(),
            next_ticket: 0,
            kill_at: None,
            watching: false,
            readers: Telling::default(),
            ready: None,
        }
    }

    /// Mirrors the monitor until the attempt is over; `stopping` is the first that it is asked.
    pub(super) async fn follow(mut self, stopping: Option<Stopping>) -> Followed {
        let followed = self.follow_on(stopping).await;
        // Another attempt may begin at once.
        if let Some(watch) = self.ready.take() {
            watch.end().await;
        }
        followed
    }

    async fn follow_on(&mut self, stopping: Option<Stopping>) -> Followed {
        if let Some((stop, reply)) = stopping {
            let request = self.stop(stop, reply);
            self.send(request).await;
        }
        // An earlier server may have died before it had asked for it.
        if let Some(request) = ready::stop_of_late(self.runner) {
            self.send(request).await;
        }
        loop {
            ready::begin(self.runner, &mut self.ready);
            if !self.watching && self.runner.feed.receiver_count() > 0 {
                self.watching = true;
                let _ = send(&self.link, UNANSWERED, Request::WatchOutput(true)).await;
            }
            let read = self.runner.read.as_mut();
            let read = read.map(|read| *read.borrow_and_update());
            if let Some(offset) = read.and_then(|read| self.readers.next(read)) {
                let _ = send(&self.link, READERS, Request::OutputRead(offset)).await;
            }
            let woken = tokio::select! {
                message = self.link.receive() => Woken::Monitor(message),
                Some(asked) = self.runner.requests.recv() => Woken::Asked(*asked),
                _ = self.runner.shutdown.changed() => Woken::Shutdown,
                () = self.runner.feed.closed(), if self.watching => Woken::Unfollowed,
                () = more_read(&mut self.runner.read), if self.readers.is_full() => Woken::Read,
                () = until(self.kill_at) => Woken::Overdue,
                () = until(self.look_at) => Woken::Look,
                seen = seen(&mut self.ready) => Woken::Ready(seen),
            };
            let next = match woken {
                Woken::Monitor(Ok(Some(message))) => self.on_monitor(message).await,
                // Rare and large: the task of a job that runs has no room for it.
                Woken::Monitor(Ok(None) | Err(_)) => Box::pin(self.find_again()).await,
                Woken::Asked(asked) => Continue(self.on_request(asked).await),
                Woken::Shutdown => self.on_shutdown(),
                Woken::Unfollowed => {
                    self.watching = false;
                    Continue(Some(Request::WatchOutput(false)))
                }
                Woken::Read => Continue(None),
                Woken::Ready(seen) => Continue(match &mut self.ready {
                    Some(watch) => Box::pin(ready::take(self.runner, watch, seen)).await,
                    None => None,
                }),
                Woken::Look => {
                    self.look_at = Some(Instant::now() + wake::LOOK);
                    if let Some(process) = &self.runner.job.process {
                        let dirs = &self.runner.shared.job_dirs;
                        wake::wake(dirs, self.runner.job.id, process.monitor_pid);
                    }
                    Continue(None)
                }
                Woken::Overdue => {
                    self.kill_at = None;
                    Continue(Some(Request::Stop(Stop {
                        force: true,
                        ..Stop::for_cause(Cause::Shutdown)
                    })))
                }
            };
            match next {
                Continue(Some(request)) => self.send(request).await,
                Continue(None) => {}
                Break(followed) => return followed,
            }
        }
    }

    async fn send(&mut self, request: Request) {
        let undelivered = send(&self.link, self.next_ticket, request).await;
        self.undelivered.extend(undelivered);
        self.next_ticket += 1;
    }

    /// Expects an answer to what is sent next.
    fn expect(&mut self, pending: Pending) {
        self.pending.insert(self.next_ticket, pending);
    }

    fn stop(&mut self, stop: Stop, reply: Reply) -> Request {
        self.expect(Pending {
            stop: Some(stop.clone()),
            ..Pending::plain(reply)
        });
        Request::Stop(stop)
    }

    async fn on_monitor(&mut self, message: FromMonitor) -> ControlFlow<Followed, Option<Request>> {
        match message {
            FromMonitor::Record(record) if record.life.ended_at().is_some() => {
                let next = Box::pin(self.end_with(&record)).await;
                return Break(Followed::Then(next));
            }
            FromMonitor::Record(record) => {
                if self.has_stdin && record.stdin_closed {
                    self.has_stdin = false;
                    // Without a supervisor nobody holds it.
                    let supervisor = &self.runner.shared.supervisor;
                    let _ = supervisor.close_stdin(self.runner.job.id).await;
                }
                mirror::mirror(&mut self.runner.job, &record);
                self.runner.publish();
                if warning::is_news(&self.runner.job, &record) {
                    Box::pin(warning::tell(self.runner, &record)).await;
                }
                if self.runner.job.state != State::Starting {
                    self.runner.answer();
                }
            }
            FromMonitor::OutputFull => self.readers.ask(),
            FromMonitor::Reply {
                ticket: READERS,
                result,
            } => self.readers.answer(matches!(result, Ok(1))),
            FromMonitor::Reply { ticket, result } => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    self.on_reply(pending, result).await;
                }
            }
            FromMonitor::Output { next_offset } => {
                self.runner.feed.send_replace(next_offset);
            }
            FromMonitor::NotLaunched(failure) if failure.errno != ALREADY_LAUNCHED => {
                let next = Box::pin(self.runner.fail_to_spawn(failure)).await;
                return Break(Followed::Then(self.answer_pending(next)));
            }
            // An earlier server's launch was still under way: that monitor has the job, and this
            // one closes its socket.
            FromMonitor::NotLaunched(_) => {}
        }
        Continue(None)
    }

    async fn on_reply(&mut self, pending: Pending, result: Result<u64, RequestRefused>) {
        if let (Ok(delivered_to), Some((signal, scope))) = (&result, pending.signal) {
            self.runner.tell(What::Signaled {
                signal,
                scope,
                delivered_to: *delivered_to,
            });
        }
        let result = match (result, pending.amendment) {
            (Ok(_), Some(amendment)) => Box::pin(self.runner.amend(*amendment)).await,
            (result, _) => result.map_err(refused),
        };
        let _ = pending.reply.send(result);
    }

    async fn on_request(&mut self, asked: JobRequest) -> Option<Request> {
        match asked {
            JobRequest::Stop(stop, reply) => {
                log::stopping(&self.runner.job, &stop);
                Some(self.stop(stop, reply))
            }
            JobRequest::Relay(request, reply) => {
                let signal = match &request {
                    Request::Signal { signal, scope } => Some((*signal, *scope)),
                    Request::Stop(_)
                    | Request::Pause
                    | Request::Resume
                    | Request::Amend { .. }
                    | Request::WatchOutput(_)
                    | Request::OutputRead(_)
                    | Request::Stdin(_)
                    | Request::Resize(_) => None,
                };
                self.expect(Pending {
                    signal,
                    ..Pending::plain(reply)
                });
                Some(request)
            }
            JobRequest::Amend(version, amendment, reply) => {
                self.on_amendment(version, amendment, reply).await
            }
            JobRequest::Follow => None,
        }
    }

    async fn on_amendment(
        &mut self,
        version: u64,
        amendment: Box<Amendment>,
        reply: Reply,
    ) -> Option<Request> {
        let job = &self.runner.job;
        // One at a time: the next one is to see what this one has changed.
        let is_taken = self.pending.values().any(|it| it.amendment.is_some());
        let refusal = if is_taken || version != job.version {
            Some(RequestError::Changed)
        } else if amendment.changes_place(job) {
            Some(RequestError::NotQueued)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return None;
        }
        if !amendment.changes_plan(job) {
            let amended = Box::pin(self.runner.amend(*amendment)).await;
            let _ = reply.send(amended);
            return None;
        }
        let request = Request::Amend {
            timeout: amendment.timeout,
            stop: amendment.stop,
        };
        self.expect(Pending {
            amendment: Some(amendment),
            ..Pending::plain(reply)
        });
        Some(request)
    }

    fn on_shutdown(&mut self) -> ControlFlow<Followed, Option<Request>> {
        match *self.runner.shutdown.borrow_and_update() {
            Some(ShutdownPlan {
                stop_jobs: true,
                kill_at,
            }) => {
                self.kill_at = Some(kill_at);
                let left = kill_at.saturating_duration_since(Instant::now());
                Continue(Some(Request::Stop(Stop {
                    grace: Some(self.runner.job.spec.stop.grace.min(left)),
                    ..Stop::for_cause(Cause::Shutdown)
                })))
            }
            // The monitor continues without us, and the next server adopts it.
            Some(ShutdownPlan {
                stop_jobs: false, ..
            }) => Break(Followed::Then(Next::Over)),
            None => Continue(None),
        }
    }

    /// The monitor is gone: continues with the one that is there now, or says how the following ended.
    async fn find_again(&mut self) -> ControlFlow<Followed, Option<Request>> {
        let runner = &mut *self.runner;
        let was_started = runner.was_started();
        let fate = adopt::fate(&runner.shared, &runner.job, was_started, runner.origin);
        let next = match fate.await {
            Fate::Lives(found, record) => {
                self.link = found;
                if let Some(record) = record {
                    mirror::mirror(&mut runner.job, &record);
                    runner.publish();
                    runner.answer();
                }
                self.ask_again().await;
                self.watching = false;
                self.readers = Telling::default();
                return Continue(None);
            }
            Fate::Ended(record) => self.end_with(&record).await,
            Fate::Lost(record, cause) => {
                runner.shared.leave(runner.job.id);
                let next = runner.lose(record, cause).await;
                self.answer_pending(next)
            }
            Fate::NeverStarted => {
                let pending = std::mem::take(&mut self.pending).into_values();
                let asked = { pending }.find_map(|it| Some((it.stop?, it.reply)));
                return Break(Followed::NeverStarted(asked));
            }
            Fate::Failed(failure) => {
                let next = runner.fail_to_spawn(failure).await;
                self.answer_pending(next)
            }
            Fate::Undecided => Next::Over,
        };
        Break(Followed::Then(next))
    }

    /// Asks a new monitor what the one before has not answered, as far as it may be asked twice: a stop may, a signal
    /// may have been delivered already.
    async fn ask_again(&mut self) {
        let undelivered = std::mem::take(&mut self.undelivered);
        let is_undelivered = |ticket| undelivered.iter().any(|message| message.ticket == ticket);
        self.pending
            .retain(|ticket, it| it.stop.is_some() || is_undelivered(*ticket));
        for (ticket, it) in &self.pending {
            if let Some(stop) = it.stop.clone() {
                let _ = send(&self.link, *ticket, Request::Stop(stop)).await;
            }
        }
        for message in undelivered {
            let _ = self.link.send(&message).await;
        }
    }

    /// The monitor's last record tells the end.
    async fn end_with(&mut self, record: &Record) -> Next {
        // Its end may be there before its start has been told: who waits for the start does not wait for the disk.
        if self.runner.awaits_start()
            && let Some(running) = mirror::as_started(&self.runner.job, record)
        {
            self.runner.job = Held::new(running);
            self.runner.publish();
            self.runner.answer();
        }
        self.runner.finish(record);
        let next = attempts::settle(self.runner, Some(record)).await;
        self.answer_pending(next)
    }

    /// Answers what the monitor has not. A stop is for the next attempt, if there is to be one: it then does not begin.
    fn answer_pending(&mut self, mut next: Next) -> Next {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let refusal = match (&mut next, pending.stop) {
                (Next::Wait(_, stopping @ None), Some(stop)) => {
                    *stopping = Some((stop, pending.reply));
                    continue;
                }
                (Next::Wait(..), _) => Refusal::NotStarted,
                (Next::Start(_) | Next::HandOver | Next::Over, _) => Refusal::Finished,
            };
            let _ = pending.reply.send(Err(refusal.into()));
        }
        next
    }
}

/// What is seen of a job that is looked at.
async fn seen(watch: &mut Option<Watch>) -> Seen {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}
