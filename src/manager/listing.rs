//! Jobs that match, live and finished: pages of them, and how many.

use std::collections::HashSet;
use std::sync::Arc;

use super::api::Page;
use super::shared::Shared;
use job::query::{Filter, Order, Query};
use job::{Job, JobId, State};
use store::StoreError;

/// A page ends early where its jobs have more bytes than this; one without specs counts as `JOB_BYTES`.
const PAGE_BYTES: usize = 8 << 20;
const JOB_BYTES: usize = 1 << 10;

/// What an answer may have of jobs: about as many bytes as a page.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: usize,
}

impl Budget {
    /// Takes the place of this job; `false` if there is none left.
    pub fn take(&mut self, job: &Job) -> bool {
        self.take_bytes(JOB_BYTES + job.spec.text_bytes())
    }

    fn take_bytes(&mut self, bytes: usize) -> bool {
        let has_place = self.bytes < PAGE_BYTES;
        if has_place {
            self.bytes += bytes;
        }
        has_place
    }

    fn left(&self) -> usize {
        PAGE_BYTES.saturating_sub(self.bytes)
    }
}

/// How many jobs are read at first, of which nobody knows yet how large they are.
const PAGE_BEGINNING: usize = 64;

/// One page of jobs, live and finished. A part at a time, so that no more is in memory than what fits in one page, and
/// a little.
pub(super) async fn page(shared: &Shared, query: Query) -> Result<Page, StoreError> {
    let mut page = Page {
        jobs: Vec::new(),
        more: true,
    };
    let (mut budget, mut at_once) = (Budget::default(), PAGE_BEGINNING);
    while page.more && page.jobs.len() < query.limit && budget.left() > 0 {
        let limit = at_once.min(query.limit - page.jobs.len());
        let beyond = Query {
            limit: limit.saturating_add(1),
            after: page.jobs.last().map(|job| job.id).or(query.after),
            ..query.clone()
        };
        let mut jobs = matching(shared, beyond).await?;
        match query.order {
            Order::CreatedAscending => jobs.sort_unstable_by_key(|job| job.id),
            Order::CreatedDescending => jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id)),
        }
        page.more = jobs.len() > limit;
        jobs.truncate(limit);
        for job in jobs {
            let bytes = match query.is_brief {
                true => JOB_BYTES,
                false => JOB_BYTES + job.spec.text_bytes(),
            };
            if !budget.take_bytes(bytes) {
                page.more = true;
                break;
            }
            page.jobs.push(job);
        }
        let each = budget.bytes.div_ceil(page.jobs.len().max(1));
        at_once = (budget.left() / each.max(1)).max(1);
    }
    Ok(page)
}

/// How many jobs of each state match, and whether that is all of them. What moves meanwhile may be missed or
/// counted twice.
pub(super) async fn counts(
    shared: &Shared,
    filter: Filter,
    limit: u64,
) -> Result<Vec<(State, u64, bool)>, StoreError> {
    let (live, waiting) = live(shared, &filter).await?;
    let finished = shared.store.count_by_state(filter, limit).await?;
    let of = |state: State| match finished.iter().find(|(one, _, _)| *one == state) {
        Some(counted) => *counted,
        None => {
            let count = count_of(state, &live, waiting);
            (state, u64::try_from(count).unwrap_or(u64::MAX), true)
        }
    };
    Ok(State::ALL.into_iter().map(of).collect())
}

/// The live jobs that match. Of those that wait, thousands perhaps, only the number if all of them match.
pub(super) async fn live(
    shared: &Shared,
    filter: &Filter,
) -> Result<(Vec<Arc<Job>>, Option<usize>), StoreError> {
    if *filter == Filter::default() {
        let waiting = shared.room.look(|admission| admission.waiting());
        return Ok((shared.room.states(), Some(waiting)));
    }
    let is_wanted = |state: &State| filter.states.is_empty() || filter.states.contains(state);
    let states: Vec<State> = State::ALL
        .into_iter()
        .filter(|state| !state.is_terminal() && is_wanted(state))
        .collect();
    if states.is_empty() {
        return Ok((Vec::new(), None));
    }
    let query = Query {
        filter: Filter {
            states,
            ..filter.clone()
        },
        order: Order::CreatedDescending,
        after: None,
        limit: usize::MAX,
        is_brief: true,
    };
    Ok((matching(shared, query).await?, None))
}

/// The jobs that match, of those that have ended or wait no more than a page; in no order.
pub(super) async fn matching(shared: &Shared, query: Query) -> Result<Vec<Arc<Job>>, StoreError> {
    // Those with tasks first: a job that ends in between is then in both, and never in neither.
    let awake = shared.room.states();
    let mut has_task: HashSet<JobId> = awake.iter().map(|job| job.id).collect();
    let mut jobs = awake;
    jobs.retain(|job| query.is_after(job.id) && query.filter.matches(job));
    let surplus = has_task.len();
    let filter = query.filter.clone();
    let (live, finished) = shared.store.list(query, surplus).await?;
    // Those without, and those that have got one since: their task knows better than their row.
    let others = live.into_iter().filter(|job| has_task.insert(job.id));
    let others = others.map(|job| match shared.room.state(job.id) {
        Some(present) => present,
        None => Arc::new(shared.outlived(job)),
    });
    jobs.extend(others.filter(|job| filter.matches(job)));
    let ended: HashSet<JobId> = finished.iter().map(|job| job.id).collect();
    jobs.retain(|job| !ended.contains(&job.id));
    jobs.extend(finished.into_iter().map(Arc::new));
    Ok(jobs)
}

/// The jobs that match and have not finished, oldest first.
///
/// # Errors
/// If the store cannot be read.
pub(super) async fn unfinished(shared: &Shared, filter: Filter) -> Result<Vec<JobId>, StoreError> {
    let mut states = State::ALL.to_vec();
    states.retain(|state| !state.is_terminal());
    let query = Query {
        filter: Filter { states, ..filter },
        order: Order::CreatedAscending,
        after: None,
        limit: usize::MAX,
        is_brief: true,
    };
    let jobs = matching(shared, query).await?;
    let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// How many of the live jobs are in a state; `waiting` is the number of those that are queued, if only that is known.
pub(super) fn count_of(state: State, live: &[Arc<Job>], waiting: Option<usize>) -> usize {
    match (state, waiting) {
        (State::Queued, Some(waiting)) => waiting,
        (_, _) => live.iter().filter(|job| job.state == state).count(),
    }
}
