//! A job on another node of the cluster: claimed, handed over, and mirrored as that node reports it, until its end.
//!
//! Only a claim that is durable is handed over, and a node takes a job once, however often it is handed over. So a job has
//! one node for good, unless that has said that it did not take it.

mod files;
mod keeping;
pub(crate) mod late;
mod place;
mod restart;
mod stops;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::requests::{JobRequest, Reply, refused};
use super::{Next, Runner, WAKEFUL, log, workspace};
use crate::nodes::{Found, NodeBook, NodeLink};
use crate::time::until;
use crate::{RequestError, mirror};
use job::amendment::Amendment;
use job::event::{self, Event, What};
use job::life::{Refusal, Stop};
use job::outcome::{Cause, Termination};
use job::spec::Secrets;
use job::{Claim, State};
use linux::{clock, failpoint};
use protocol::wire::link::{Answered, Ask, AskRefused, Change, FromNode, Report, ToNode};

use keeping::{store, store_and_ask};
pub(super) use place::{Chosen, choose, claim, claimed, hand_over, take_back};
use stops::unreachable_now;

/// How long a request waits for a node that is not connected: its server may have been started again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A job that an earlier server gave to another node; it holds a slot.
pub(crate) async fn resume(mut runner: Box<Runner>, secrets: Secrets) {
    if runner.job.claim.as_ref().is_some_and(|it| it.confirmed) {
        files::are_there(&runner).await;
    }
    let next = Away::new(&mut runner, &secrets).follow().await;
    let awake_until = Instant::now() + WAKEFUL;
    runner.go_on(secrets, next, awake_until).await;
}

/// A request that the node has not answered yet.
struct Pending {
    amendment: Option<Box<Amendment>>,
    /// It was a stop, which is kept if the link breaks.
    stop: Option<Stop>,
    reply: Reply,
}

/// What a job on another node is woken by.
enum Woken {
    Said(Option<FromNode>),
    Asked(JobRequest),
    Shutdown,
}

/// How a conversation about a job ended.
enum Left {
    /// The link did.
    Link,
    /// The node has not taken it.
    Refused,
    Then(Next),
}

/// A job and its node.
pub(super) struct Away<'a> {
    runner: &'a mut Runner,
    secrets: &'a Secrets,
    nodes: Option<Arc<NodeBook>>,
    pending: HashMap<u64, Pending>,
    /// What waits for the link, and until when.
    held: VecDeque<(JobRequest, Instant)>,
    /// The version of the job on its node that was mirrored last.
    version: u64,
}

impl<'a> Away<'a> {
    pub(super) fn new(runner: &'a mut Runner, secrets: &'a Secrets) -> Self {
        Self {
            nodes: runner.shared.nodes.clone(),
            runner,
            secrets,
            pending: HashMap::new(),
            held: VecDeque::new(),
            version: 0,
        }
    }

    /// Mirrors the node until the job is over, or the node has not taken it.
    pub(super) async fn follow(mut self) -> Next {
        loop {
            let Some(link) = self.reach().await else {
                return Next::Over;
            };
            let left = match link {
                Ok(link) => self.converse(link).await,
                Err(why) => Left::Then(self.lose(why).await),
            };
            for pending in std::mem::take(&mut self.pending).into_values() {
                // What came of it is not known. A stop can be asked again.
                match (pending.stop, &left) {
                    (Some(stop), Left::Link) => self.keep_stop((stop, pending.reply)).await,
                    (_, _) => drop(pending.reply.send(Err(RequestError::NodeUnreachable))),
                }
            }
            match left {
                Left::Link => {}
                Left::Refused => {
                    let stopping = self.asked_to_stop();
                    return place::wait_again(self.runner, stopping).await;
                }
                Left::Then(next) => return next,
            }
        }
    }

    fn claim(&self) -> Option<&Claim> {
        self.runner.job.claim.as_deref()
    }

    /// Waits for the link of the node; `Err` if the job is lost, and why; nothing if the service ends.
    async fn reach(&mut self) -> Option<Result<NodeLink, String>> {
        let (nodes, claim) = (self.nodes.clone()?, self.claim()?.clone());
        let mut changes = nodes.changes();
        loop {
            changes.borrow_and_update();
            if self.runner.shutdown.borrow().is_some() {
                return None;
            }
            let lost_at = match nodes.find(&claim.node, self.runner.job.id) {
                Found::Linked(link) if link.store == claim.store => return Some(Ok(link)),
                Found::Linked(_) => {
                    return Some(Err("has come back without its jobs".to_owned()));
                }
                Found::Unknown => return Some(Err("was given up".to_owned())),
                Found::Away(lost_at) => lost_at,
            };
            tokio::select! {
                _ = changes.changed() => {}
                _ = self.runner.shutdown.changed() => {}
                () = until(Some(lost_at)) => {
                    // It may have come in this very moment.
                    if let Found::Away(lost_at) = nodes.find(&claim.node, self.runner.job.id)
                        && lost_at <= Instant::now()
                    {
                        return Some(Err("has not been heard for too long".to_owned()));
                    }
                }
                () = until(self.held.front().map(|(_, until)| *until)) => {
                    match self.held.pop_front() {
                        Some((JobRequest::Stop(stop, reply), _)) => {
                            self.keep_stop((stop, reply)).await;
                        }
                        Some((asked, _)) => unreachable_now(asked),
                        None => {}
                    }
                }
                Some(asked) = self.runner.requests.recv() => {
                    self.held.push_back((*asked, Instant::now() + PATIENCE));
                }
            }
        }
    }

    async fn converse(&mut self, mut link: NodeLink) -> Left {
        match self.claim() {
            Some(claim) if claim.confirmed => link.send(ToNode::Follow {
                job: self.runner.job.id,
                seen: claim.seen,
            }),
            Some(_) | None => {
                failpoint::hit("assign.sending");
                link.send(ToNode::Assign(Box::new(place::assignment(
                    &self.runner.job,
                    self.secrets,
                ))));
                failpoint::hit("assign.sent");
            }
        }
        if let Some(stop) = self.claim().and_then(|it| it.stop.as_deref().cloned()) {
            let (reply, _) = oneshot::channel();
            self.ask(&link, JobRequest::Stop(stop, reply)).await;
        }
        loop {
            while let Some((asked, _)) = self.held.pop_front() {
                self.ask(&link, asked).await;
            }
            let woken = tokio::select! {
                said = link.receive() => Woken::Said(said),
                Some(asked) = self.runner.requests.recv() => Woken::Asked(*asked),
                _ = self.runner.shutdown.changed() => Woken::Shutdown,
            };
            let said = match woken {
                Woken::Said(Some(said)) => said,
                Woken::Said(None) => return Left::Link,
                Woken::Asked(asked) => {
                    self.ask(&link, asked).await;
                    continue;
                }
                // The job goes on, and the next server finds it.
                Woken::Shutdown => return Left::Then(Next::Over),
            };
            match said {
                FromNode::Report(report) => {
                    if let Some(left) = self.on_report(&link, *report).await {
                        return left;
                    }
                }
                FromNode::Answer { answered, .. } => {
                    self.keep_granted(std::slice::from_ref(&answered));
                    self.on_answer(answered).await;
                }
                FromNode::NotHeld { .. } => {
                    let why = "does not have the job any more".to_owned();
                    return Left::Then(self.lose(why).await);
                }
                FromNode::Refused {
                    fence,
                    why,
                    is_final,
                    ..
                } => {
                    if let Some(left) = self.on_refusal(fence, &why, is_final).await {
                        return left;
                    }
                }
                FromNode::Hello(_)
                | FromNode::Prepared { .. }
                | FromNode::Pong { .. }
                | FromNode::Lead { .. } => {}
            }
        }
    }

    async fn ask(&mut self, link: &NodeLink, asked: JobRequest) {
        let (mut stopped, mut amended) = (None, None);
        let (ask, reply) = match asked {
            JobRequest::Stop(stop, reply) => {
                log::stopping(&self.runner.job, &stop);
                stopped = Some(stop.clone());
                (Ask::Stop(stop), reply)
            }
            JobRequest::Relay(request, reply) => (Ask::Relay(request), reply),
            JobRequest::Follow => return,
            JobRequest::Amend(version, amendment, reply) => {
                match self.change(version, &amendment) {
                    Ok(Some(change)) => {
                        amended = Some(amendment);
                        (Ask::Amend(Box::new(change)), reply)
                    }
                    Ok(None) => {
                        let _ = reply.send(self.runner.amend(*amendment).await);
                        return;
                    }
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                        return;
                    }
                }
            }
        };
        let ticket = link.ask(ask);
        let pending = Pending {
            amendment: amended,
            stop: stopped,
            reply,
        };
        self.pending.insert(ticket, pending);
    }

    /// What the node has to know of a change; nothing if it is the hub's alone.
    fn change(&self, version: u64, amendment: &Amendment) -> Result<Option<Change>, RequestError> {
        let job = &self.runner.job;
        // One at a time: the next one is to see what this one has changed.
        let is_taken = self.pending.values().any(|it| it.amendment.is_some());
        if is_taken || version != job.version {
            return Err(RequestError::Changed);
        }
        let elsewhere = Amendment {
            next_attempt_at: job.next_attempt_at,
            ..amendment.clone()
        };
        if elsewhere.changes_place(job) {
            return Err(RequestError::NotQueued);
        }
        let is_known_there = amendment.changes_plan(job)
            || amendment.retry != job.spec.retry
            || amendment.next_attempt_at != job.next_attempt_at;
        Ok(is_known_there.then(|| Change {
            timeout: amendment.timeout,
            stop: amendment.stop,
            retry: amendment.retry.clone(),
            next_attempt_at: amendment.next_attempt_at,
        }))
    }

    async fn on_answer(&mut self, Answered { ticket, result }: Answered) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        let Pending {
            amendment, reply, ..
        } = pending;
        let result = match (result, amendment) {
            // By the time it is asked again, it is in the store.
            (Ok(_), Some(_)) if self.runner.job.state.is_terminal() => Err(RequestError::Changed),
            (Ok(_), Some(amendment)) => {
                // The time of the next attempt has come with the answer.
                let next_attempt_at = self.runner.job.next_attempt_at;
                let amendment = Amendment {
                    next_attempt_at,
                    ..*amendment
                };
                self.runner.amend(amendment).await
            }
            (Ok(number), None) => Ok(number),
            (Err(why), _) => Err(match why {
                AskRefused::Refused(why) => refused(why),
                AskRefused::NoSuchJob => RequestError::NodeUnreachable,
                AskRefused::Changed => RequestError::Changed,
                AskRefused::NotQueued => RequestError::NotQueued,
                AskRefused::NoTerminal => RequestError::NoTerminal,
                AskRefused::Unavailable => RequestError::MonitorGone,
            }),
        };
        let _ = reply.send(result);
    }

    /// The node has not taken the job, and has stored nothing of it.
    async fn on_refusal(&mut self, fence: u32, why: &str, is_final: bool) -> Option<Left> {
        let claim = self.claim()?;
        if claim.confirmed || claim.fence != fence {
            return None;
        }
        let (id, node) = (self.runner.job.id, claim.node.clone());
        tracing::info!(job.id = %id, %node, "node {node} does not take job {id}: {why}");
        if is_final {
            self.runner.job.claim = None;
            let why = format!("node {node} cannot run it: {why}");
            return Some(Left::Then(self.runner.fail_to_place(&node, why).await));
        }
        if let Some(nodes) = &self.nodes {
            nodes.shut(&node);
        }
        Some(Left::Refused)
    }

    /// Stores what the node reports, then shows it, then says so.
    async fn on_report(&mut self, link: &NodeLink, report: Report) -> Option<Left> {
        if report.job.last_fence() < self.runner.job.last_fence() {
            // Of an attempt that was given up for lost.
            return None;
        }
        let is_over = report.job.state.is_terminal();
        let is_stopped = self.keep_granted(&report.answers);
        let ack = (!report.unconfirmed).then_some(ToNode::Ack {
            job: report.job.id,
            seen: report.seen,
        });
        let runner = &mut *self.runner;
        let before = runner.job.clone();
        if report.job.version >= self.version {
            self.version = report.job.version;
            mirror::mirror_there(&mut runner.job, &report.job);
        }
        // What is only told of it leaves it as it is.
        if *runner.job != *before {
            runner.job.version += 1;
        }
        let mut is_first = false;
        if let Some(claim) = &mut runner.job.claim {
            is_first = !std::mem::replace(&mut claim.confirmed, true);
            claim.seen = report.seen;
        }
        let events = mirror::told_there(&runner.job, report.events);
        for event in &events {
            runner.told = event.state.unwrap_or(runner.told);
            if let What::AttemptFinished { .. } = event.what {
                runner.is_counted = false;
            }
        }
        runner.note_start();
        if is_over {
            return Some(self.on_end(link, events, ack, report.answers).await);
        }
        // What nothing is told of yet is stored with what comes next: until then it is asked anew of the node, as a start
        // is of a monitor. But the node may be lost before.
        if !events.is_empty() || is_stopped || is_first && runner.job.spec.workspace.is_some() {
            failpoint::hit("report.storing");
            if !store_and_ask(self, link, events).await {
                return Some(Left::Then(Next::Over));
            }
            failpoint::hit("report.stored");
        }
        let runner = &mut *self.runner;
        runner.publish.send_replace(runner.job.shown());
        if is_first {
            files::are_there(runner).await;
        }
        if runner.job.state != State::Starting {
            runner.answer();
        }
        if let Some(ack) = ack {
            link.send(ack);
        }
        for answered in report.answers {
            self.on_answer(answered).await;
        }
        None
    }

    /// The last report of a job: its end is stored, then shown, then said to be.
    async fn on_end(
        &mut self,
        link: &NodeLink,
        mut events: Vec<Event>,
        ack: Option<ToNode>,
        answers: Vec<Answered>,
    ) -> Left {
        let runner = &mut *self.runner;
        // Retention goes by the clock of the hub.
        if let Some(claim) = &mut runner.job.claim {
            claim.stop = None;
        }
        let ttl = runner.job.spec.ttl_after_finished;
        runner.job.expires_at = Some(clock::wall().after(ttl));
        if !events
            .iter()
            .any(|it| matches!(it.what, What::Finished { .. }))
        {
            // The node does not keep it any more.
            events.extend(event::since(State::Starting, &runner.job, clock::wall()));
        }
        runner.shared.leave(runner.job.id);
        runner.shared.metrics.attempt_ended(runner.job.state);
        workspace::collect(&runner.shared, &mut runner.job).await;
        runner.commit_end_telling(events).await;
        if let Some(ack) = ack {
            link.send(ack);
        }
        for answered in answers {
            self.on_answer(answered).await;
        }
        // The others were asked a job that is over.
        for pending in std::mem::take(&mut self.pending).into_values() {
            let _ = pending.reply.send(Err(Refusal::Finished.into()));
        }
        Left::Then(Next::Over)
    }

    /// The node will not tell how the job ends. It may still run there.
    async fn lose(&mut self, why: String) -> Next {
        self.hold_stops();
        let runner = &mut *self.runner;
        let restart = restart::wanted(&runner.job, &self.held);
        mirror::end(
            &mut runner.job,
            Termination::unasked(Cause::NodeLost),
            clock::wall(),
        );
        runner.job.message = runner.job.claim.as_deref().map(|claim| {
            let ends = claim
                .stop
                .as_ref()
                .map(|_| late::is_ended_there(&claim.node));
            format!(
                "node {} {why}: nobody knows how the job ended, or whether it still runs there{}",
                claim.node,
                ends.unwrap_or_default()
            )
        });
        if let Some(claim) = restart {
            let next = restart::elsewhere(runner, &claim).await;
            for (asked, _) in std::mem::take(&mut self.held) {
                unreachable_now(asked);
            }
            return next;
        }
        runner.shared.leave(runner.job.id);
        runner.commit_end().await;
        late::after_loss(&runner.shared, &runner.job);
        self.grant_held();
        Next::Over
    }
}
