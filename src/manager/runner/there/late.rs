//! A node comes back after its jobs were given up for lost: what became of them is told, and what is not wanted any more
//! is ended.

use std::sync::Arc;
use std::time::Duration;

use crate::api::LookupError;
use crate::nodes::{Found, Left, NodeBook, NodeLink};
use crate::shared::Shared;
use job::event::{Event, What};
use job::life::Stop;
use job::placement::Late;
use job::query::{Filter, OnNode, Order, Query};
use job::{Cause, Job, JobId, NodeName, State};
use linux::clock;
use protocol::wire::link::{Ask, FromNode, ToNode};

/// How many lost jobs are read at a time.
const PAGE: usize = 100;

/// How long is waited at a time for the end of what is not wanted any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of the jobs that a node says it has, those that were given up for lost, with their weights: what still runs takes room
/// there.
pub(crate) async fn left_on(shared: &Arc<Shared>, node: &NodeName, held: &[(JobId, u32)]) -> Left {
    let mut left = Left::new();
    for (id, _) in held {
        // One that cannot be read takes none until it is heard of.
        if let Ok(job) = shared.get(*id).await
            && job.state == State::Lost
            && !is_told(&job)
            && job.claim.as_ref().is_some_and(|it| it.node == *node)
        {
            left.insert(*id, job.spec.weight);
        }
    }
    left
}

/// A node has joined, and says that it has these jobs, which have not ended.
pub(crate) async fn catch_up(shared: Arc<Shared>, node: NodeName, held: Vec<(JobId, u32)>) {
    for (job, fence) in held {
        shared.spawn(end_superseded(shared.clone(), node.clone(), job, fence));
    }
    let mut query = Query {
        filter: Filter {
            states: vec![State::Lost],
            node: Some(OnNode::Named(node.to_string())),
            ..Filter::default()
        },
        order: Order::CreatedAscending,
        after: None,
        limit: PAGE,
        is_brief: true,
    };
    loop {
        let lost = match shared.store.list(query.clone(), 0).await {
            Ok((_, lost)) => lost,
            // The next link is another chance.
            Err(error) => return shared.store_failed(&error),
        };
        query.after = lost.last().map(|job| job.id);
        let is_last = lost.len() < PAGE;
        for job in lost {
            after_loss(&shared, &job);
        }
        if is_last {
            return;
        }
    }
}

/// Hears what the node of a lost job has to say, if it is connected and has not said it.
pub(super) fn after_loss(shared: &Arc<Shared>, job: &Job) {
    let Some(nodes) = shared.nodes.clone().filter(|_| !is_told(job)) else {
        return;
    };
    shared.spawn(hear(shared.clone(), nodes, job.id));
}

/// Has its node said how it ended, or that it does not have it?
fn is_told(job: &Job) -> bool {
    job.late.as_ref().is_some_and(|it| it.state.is_terminal())
}

async fn hear(shared: Arc<Shared>, nodes: Arc<NodeBook>, id: JobId) {
    let Some(node) = hear_from(&shared, &nodes, id).await else {
        return;
    };
    if nodes.is_left_no_more(&node, id) {
        shared.nodes_changed();
    }
}

/// Tells what the node of a lost job says of it; the node, once it has said that nothing of it runs there.
async fn hear_from(shared: &Arc<Shared>, nodes: &Arc<NodeBook>, id: JobId) -> Option<NodeName> {
    // As it is by now: a stop may have been asked meanwhile.
    let job = shared.get(id).await.ok()?;
    let claim = job.claim.as_deref().filter(|_| shared.is_there(&job))?;
    let Found::Linked(mut link) = nodes.find(&claim.node, id) else {
        return None;
    };
    if link.store != claim.store {
        return None;
    }
    if let Some(stop) = &claim.stop {
        link.ask(Ask::Stop((**stop).clone()));
    }
    let seen = claim.seen;
    link.send(ToNode::Follow { job: id, seen });
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let said = tokio::select! {
            said = link.receive() => said,
            _ = shutdown.wait_for(Option::is_some) => None,
        };
        let node = claim.node.clone();
        match said {
            Some(FromNode::Report(report)) if report.job.last_fence() >= job.last_fence() => {
                let there = &report.job;
                let late = Late {
                    node,
                    state: there.state,
                    exit: there.exit,
                    finished_at: there.finished_at,
                };
                let is_over = late.state.is_terminal();
                // It takes its room there although the hub may have removed what it knew of it.
                if !note(shared, id, &late, Some(there)).await && shared.shutdown.has_begun() {
                    return None;
                }
                if !is_over && nodes.is_left(&late.node, id, job.spec.weight) {
                    shared.nodes_changed();
                }
                if !report.unconfirmed {
                    let seen = report.seen;
                    link.send(ToNode::Ack { job: id, seen });
                }
                if is_over {
                    return Some(late.node);
                }
            }
            // It was lost on its way there, or has been removed: over the next link it would say the same.
            Some(FromNode::NotHeld { .. }) => {
                let late = Late {
                    node,
                    state: State::Lost,
                    exit: None,
                    finished_at: None,
                };
                note(shared, id, &late, None).await;
                return Some(late.node);
            }
            None => return None,
            Some(_) => {}
        }
    }
}

/// Notes what the node says as soon as the store takes it: it is said once in a link. `false` if the job is gone, or the
/// service ends.
async fn note(shared: &Arc<Shared>, id: JobId, late: &Late, there: Option<&Job>) -> bool {
    let mut shutdown = shared.shutdown.subscribe();
    let tell = || async {
        match tell(shared, id, late, there).await {
            Ok(()) => Ok(true),
            Err(LookupError::NoSuchJob) => Ok(false),
            Err(LookupError::Store(error)) => Err(error),
        }
    };
    let news = (id, "what its node says");
    let end = shutdown.wait_for(Option::is_some);
    let told = shared.until_stored(news, tell, end).await;
    told.unwrap_or(false)
}

/// Notes what the node says of a lost job, which stays what it is.
async fn tell(
    shared: &Arc<Shared>,
    id: JobId,
    late: &Late,
    there: Option<&Job>,
) -> Result<(), LookupError> {
    let _turn = shared.finished_amendments.acquire().await;
    let job = shared.get(id).await?;
    if is_told(&job) || job.late.as_deref() == Some(late) {
        return Ok(());
    }
    let mut job = Job::clone(&job);
    let is_over = late.state.is_terminal();
    let is_confirmed = job.claim.as_ref().is_some_and(|claim| claim.confirmed);
    let said = match there {
        Some(_) if is_over => format!(" and says that it ended there: {}", late.state.as_str()),
        Some(_) => ", and it still runs there: DELETE ends it".to_owned(),
        None if is_confirmed => " and does not have it any more".to_owned(),
        None => " and does not have it: most likely it never began".to_owned(),
    };
    job.message = Some(format!(
        "it was given up for lost; node {} has come back{said}",
        late.node
    ));
    if let Some(there) = there {
        job.output = there.output;
        job.usage = there.usage;
        job.artifacts.clone_from(&there.artifacts);
    }
    if let Some(claim) = job.claim.as_mut().filter(|_| is_over) {
        claim.stop = None;
    }
    job.late = Some(Box::new(late.clone()));
    job.version += 1;
    let event = Event::of(&job, clock::wall(), What::ReportedLate(late.clone()));
    Ok(shared.store.finish(Arc::new(job), vec![event]).await?)
}

/// What the message of a lost job adds if it was asked to end.
pub(super) fn is_ended_there(node: &NodeName) -> String {
    format!("; what is left of it is ended when node {node} is there")
}

/// Keeps a stop of a lost job until its node is there again.
pub(crate) async fn keep_stop(
    shared: &Arc<Shared>,
    id: JobId,
    stop: &Stop,
) -> Result<(), LookupError> {
    let _turn = shared.finished_amendments.acquire().await;
    let job = shared.get(id).await?;
    let is_told = is_told(&job);
    let mut job = Job::clone(&job);
    let Some(claim) = job.claim.as_mut().filter(|_| !is_told) else {
        return Ok(());
    };
    if claim.stop.as_deref() == Some(stop) {
        return Ok(());
    }
    let node = claim.node.clone();
    let was_asked = claim.stop.replace(Box::new(stop.clone())).is_some();
    if !was_asked && let Some(message) = &mut job.message {
        message.push_str(&is_ended_there(&node));
    }
    job.version += 1;
    let event = Event {
        webhooks: Vec::new(),
        ..Event::of(&job, clock::wall(), What::Changed)
    };
    Ok(shared.store.finish(Arc::new(job), vec![event]).await?)
}

/// Ends an attempt that a node still has, if another one has been begun in its place. Whoever sends that one to the same
/// node takes the link; the node itself then ends the old one first.
pub(super) async fn end_superseded(shared: Arc<Shared>, node: NodeName, id: JobId, fence: u32) {
    let Some(nodes) = shared.nodes.clone() else {
        return;
    };
    // Before the job is looked at: who takes the link later is seen by that.
    let Some(link) = NodeLink::if_free(&nodes, &node, id) else {
        return;
    };
    // What is not known here is left alone: it may be newer than a backup that this hub was restored from.
    let Ok(job) = shared.get_any(id).await else {
        return;
    };
    // The node has this attempt by right, or has had a later one, which ended this one, or gets that.
    let is_its_own = job.claim.as_ref().is_some_and(|claim| {
        let gets_it = claim.confirmed || !job.state.is_terminal();
        claim.node == node && (claim.fence == fence || gets_it)
    });
    if is_its_own || job.last_fence() < fence {
        return;
    }
    tokio::task::block_in_place(|| linux::failpoint::hit("superseded.looked"));
    let stop = Stop {
        reason: Some("it has started again on another node".to_owned()),
        force: true,
        ..Stop::for_cause(Cause::Superseded)
    };
    if !link.ask_if_held(Ask::Stop(stop)) {
        return;
    }
    tracing::info!(job.id = %id, %node, "node {node} still has an attempt of job {id} that was given up for lost: it is ended");
    if nodes.is_gone(&node, id, PATIENCE).await {
        link.forget_if_held();
    }
}
