//! The job under its monitor: mirrors what the monitor says and passes on what is asked.
//!
//! How a monitor is made, and how a job gets its slot, is not known here.

use std::collections::HashMap;

use tokio::time::Instant;

use super::asks::{Ask, Pending, READERS, UNANSWERED, refused, send};
use super::{Runner, ShutdownPlan, Stopping, until};
use crate::adopt::{self, Fate};
use crate::link::MonitorLink;
use crate::readers::Telling;
use crate::{RequestError, mirror};
use job::State;
use job::event::What;
use job::life::{Refusal, Stop};
use job::outcome::Cause;
use protocol::record::Record;
use protocol::wire::messages::{FromMonitor, Request, ToMonitor};

/// The job's directory exists (`EEXIST`): making it is what decides between two launches of one job.
const ALREADY_LAUNCHED: i32 = nix::libc::EEXIST;

/// How following a monitor ended.
pub(super) enum Followed {
    /// The job is over, or left to the next server.
    Over,
    /// No program was executed and none will be: it may be launched again. A stop was asked meanwhile.
    NeverStarted(Option<Stopping>),
}

/// What a job under a monitor is woken by.
enum Woken {
    Ask(Ask),
    Shutdown,
    Monitor(std::io::Result<Option<FromMonitor>>),
    /// Nobody follows the output any more.
    Unfollowed,
    /// More of the output has been read.
    Read,
    Overdue,
}

impl Runner {
    /// Mirrors the monitor until the job is over; `stopping` is the first that it is asked.
    pub(super) async fn follow(
        &mut self,
        mut link: MonitorLink,
        stopping: Option<Stopping>,
    ) -> Followed {
        let mut pending: HashMap<u64, Pending> = HashMap::new();
        // For the next monitor: the one that it was meant for was dead already.
        let mut undelivered: Vec<ToMonitor> = Vec::new();
        let mut next_ticket = 1;
        let mut kill_at = None;
        if let Some((stop, reply)) = stopping {
            let message = ToMonitor {
                ticket: 0,
                request: Request::Stop(stop.clone()),
            };
            pending.insert(
                0,
                Pending {
                    stop: Some(stop),
                    ..Pending::plain(reply)
                },
            );
            let _ = link.send(&message).await;
        }
        let mut watching = false;
        let mut has_stdin = self.job.spec.takes_input();
        let mut readers = Telling::default();
        loop {
            let read = self.read.as_mut().map(|read| *read.borrow_and_update());
            if let Some(offset) = read.and_then(|read| readers.next(read)) {
                let _ = send(&link, READERS, Request::OutputRead(offset)).await;
            }
            if !watching && self.feed.receiver_count() > 0 {
                watching = true;
                let _ = send(&link, UNANSWERED, Request::WatchOutput(true)).await;
            }
            let woken = tokio::select! {
                message = link.receive() => Woken::Monitor(message),
                Some(ask) = self.asks.recv() => Woken::Ask(*ask),
                _ = self.shutdown.changed() => Woken::Shutdown,
                () = self.feed.closed(), if watching => Woken::Unfollowed,
                () = more_read(&mut self.read), if readers.is_full() => Woken::Read,
                () = until(kill_at) => Woken::Overdue,
            };
            let request = match woken {
                Woken::Monitor(Ok(Some(FromMonitor::Record(record)))) => {
                    if record.life.ended_at().is_some() {
                        Box::pin(self.end_with(&record, pending)).await;
                        return Followed::Over;
                    }
                    if has_stdin && record.stdin_closed {
                        has_stdin = false;
                        // Without a supervisor nobody holds it.
                        let _ = self.shared.supervisor.close_stdin(self.job.id).await;
                    }
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                    if self.job.state != State::Starting {
                        self.answer();
                    }
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::OutputFull))) => {
                    readers.ask();
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::Reply {
                    ticket: READERS,
                    result,
                }))) => {
                    readers.answer(matches!(result, Ok(1)));
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::Reply { ticket, result }))) => {
                    if let Some(Pending {
                        amendment,
                        signal,
                        reply,
                        ..
                    }) = pending.remove(&ticket)
                    {
                        if let (Ok(delivered_to), Some((signal, scope))) = (&result, signal) {
                            self.tell(What::Signaled {
                                signal,
                                scope,
                                delivered_to: *delivered_to,
                            });
                        }
                        let result = match (result, amendment) {
                            (Ok(_), Some(amendment)) => Box::pin(self.amend(*amendment)).await,
                            (result, _) => result.map_err(refused),
                        };
                        let _ = reply.send(result);
                    }
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::Output { next_offset }))) => {
                    self.feed.send_replace(next_offset);
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::NotLaunched(failure))))
                    if failure.errno != ALREADY_LAUNCHED =>
                {
                    Box::pin(self.fail_to_spawn(failure)).await;
                    return Followed::Over;
                }
                // An earlier server's launch was still under way: that monitor has the job, and this
                // one closes its socket.
                Woken::Monitor(Ok(Some(FromMonitor::NotLaunched(_)))) => continue,
                Woken::Monitor(Ok(None) | Err(_)) => {
                    let found = self.find_again(&mut link, &mut pending, &mut undelivered);
                    // Rare and large: the task of a job that runs has no room for it.
                    match Box::pin(found).await {
                        None => {
                            watching = false;
                            readers = Telling::default();
                            continue;
                        }
                        Some(followed) => return followed,
                    }
                }
                Woken::Ask(Ask::Stop(stop, reply)) => {
                    pending.insert(
                        next_ticket,
                        Pending {
                            stop: Some(stop.clone()),
                            ..Pending::plain(reply)
                        },
                    );
                    Request::Stop(stop)
                }
                Woken::Ask(Ask::Relay(request, reply)) => {
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
                    let asked = Pending {
                        signal,
                        ..Pending::plain(reply)
                    };
                    pending.insert(next_ticket, asked);
                    request
                }
                Woken::Ask(Ask::Amend(version, amendment, reply)) => {
                    // One at a time: the next one is to see what this one has changed.
                    let is_taken = pending.values().any(|ask| ask.amendment.is_some());
                    let refusal = if is_taken || version != self.job.version {
                        Some(RequestError::Changed)
                    } else if amendment.changes_place(&self.job) {
                        Some(RequestError::NotQueued)
                    } else {
                        None
                    };
                    if let Some(refusal) = refusal {
                        let _ = reply.send(Err(refusal));
                        continue;
                    }
                    if !amendment.changes_plan(&self.job) {
                        let amended = Box::pin(self.amend(*amendment)).await;
                        let _ = reply.send(amended);
                        continue;
                    }
                    let request = Request::Amend {
                        timeout: amendment.timeout,
                        stop: amendment.stop,
                    };
                    let asked = Pending {
                        amendment: Some(amendment),
                        ..Pending::plain(reply)
                    };
                    pending.insert(next_ticket, asked);
                    request
                }
                Woken::Ask(Ask::Follow) | Woken::Read => continue,
                Woken::Unfollowed => {
                    watching = false;
                    Request::WatchOutput(false)
                }
                Woken::Shutdown => match *self.shutdown.borrow_and_update() {
                    Some(ShutdownPlan {
                        stop_jobs: true,
                        kill_at: at,
                    }) => {
                        kill_at = Some(at);
                        let grace = self
                            .job
                            .spec
                            .stop
                            .grace
                            .min(at.saturating_duration_since(Instant::now()));
                        Request::Stop(Stop {
                            grace: Some(grace),
                            ..Stop::for_cause(Cause::Shutdown)
                        })
                    }
                    // The monitor goes on without us, and the next server adopts it.
                    Some(ShutdownPlan {
                        stop_jobs: false, ..
                    }) => return Followed::Over,
                    None => continue,
                },
                Woken::Overdue => {
                    kill_at = None;
                    Request::Stop(Stop {
                        force: true,
                        ..Stop::for_cause(Cause::Shutdown)
                    })
                }
            };
            undelivered.extend(send(&link, next_ticket, request).await);
            next_ticket += 1;
        }
    }

    /// The monitor is gone: goes on with the one that is there now, or says how the following ended.
    async fn find_again(
        &mut self,
        link: &mut MonitorLink,
        pending: &mut HashMap<u64, Pending>,
        undelivered: &mut Vec<ToMonitor>,
    ) -> Option<Followed> {
        match adopt::fate(&self.shared, self.job.id, self.origin).await {
            Fate::Lives(found, record) => {
                *link = found;
                if let Some(record) = record {
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                    self.answer();
                }
                // A stop may be asked twice; a signal may have been delivered already.
                let is_undelivered =
                    |ticket| undelivered.iter().any(|message| message.ticket == ticket);
                pending.retain(|ticket, ask| ask.stop.is_some() || is_undelivered(*ticket));
                for (ticket, ask) in &*pending {
                    if let Some(stop) = ask.stop.clone() {
                        let _ = send(link, *ticket, Request::Stop(stop)).await;
                    }
                }
                for message in std::mem::take(undelivered) {
                    let _ = link.send(&message).await;
                }
                return None;
            }
            Fate::Ended(record) => self.end_with(&record, std::mem::take(pending)).await,
            Fate::Lost(record, cause) => {
                self.shared.leave(self.job.id);
                self.lose(record, cause).await;
            }
            Fate::NeverStarted => {
                let asked = std::mem::take(pending)
                    .into_values()
                    .find_map(|ask| Some((ask.stop?, ask.reply)));
                return Some(Followed::NeverStarted(asked));
            }
            Fate::Failed(failure) => self.fail_to_spawn(failure).await,
            Fate::Undecided => {}
        }
        Some(Followed::Over)
    }

    /// The monitor's last record tells the end.
    async fn end_with(&mut self, record: &Record, pending: HashMap<u64, Pending>) {
        self.finish(record);
        self.commit_end().await;
        for (_, ask) in pending {
            let _ = ask.reply.send(Err(Refusal::Finished.into()));
        }
    }
}

/// Returns when more of the output has been read.
async fn more_read(read: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    let gone = match read {
        Some(read) => read.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}
