//! Jobs that wait for the ends of others: who is let go, who can never start, and which records are still needed.
//!
//! What follows from an end is decided in the account. Each job has its dependencies in its own row, so that a server
//! that is killed between an end and what follows from it leaves all of it to the next one. The account's lock is taken
//! before the room's, never after it, and never held over an await.

mod account;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use account::{Account, Effects, Member, Tally, Target};

use super::api::LookupError;
use super::batches;
use super::shared::Shared;
use job::dependency::Ended;
use job::life::Stop;
use job::{Cause, Job, JobId};
use store::StoreError;

/// Jobs that wait for others.
#[derive(Debug, Default)]
pub(super) struct Chains(Mutex<Account>);

impl Chains {
    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These jobs are being ended, whatever becomes of those that they wait for.
    pub(super) fn give_up(&self, ids: &[JobId]) {
        let mut account = self.account();
        for id in ids {
            account.remove(*id);
        }
    }

    /// Does a job that has not ended depend on this one?
    pub(super) fn is_wanted(&self, id: JobId) -> bool {
        self.account().is_wanted(Target::Job(id))
    }

    /// How many are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.account().wanted()
    }

    /// Is it being removed for good?
    pub(super) fn is_leaving(&self, id: JobId) -> bool {
        self.account().is_leaving(Target::Job(id))
    }

    /// Those of them that may be removed for good, on which nothing can depend from now on.
    pub(super) fn begin_removal(&self, ids: Vec<JobId>) -> Vec<JobId> {
        let mut account = self.account();
        let mut may_go = |id: &JobId| account.leave(Target::Job(*id));
        ids.into_iter().filter(|id| may_go(id)).collect()
    }

    /// They are gone, or stay after all.
    pub(super) fn removed(&self, ids: &[JobId]) {
        let mut account = self.account();
        for id in ids {
            account.gone(Target::Job(*id));
        }
    }

    /// Notes what a job depends on that an earlier server has accepted.
    pub(super) fn recall(&self, job: &Job) {
        let mut account = self.account();
        let needs = account.needs(&job.depends_on);
        // Nothing is being removed yet.
        let _ = account.add(member(job), &needs);
    }
}

/// Why a job cannot depend on something.
#[derive(Debug)]
pub(super) enum Unlinked {
    /// What this dependency names is not there.
    Unknown(usize),
    Store(StoreError),
}

/// The dependencies of a job that is being accepted; forgotten with this unless it is kept.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    job: Option<JobId>,
}

impl Link {
    /// The job's owner sees to them from now on; whose they are.
    pub(super) fn keep(mut self) -> Option<JobId> {
        self.job.take()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            self.shared.chains.account().remove(job);
        }
    }
}

/// Where a target is.
enum Found {
    Lives,
    Ended(Ended),
    Gone,
}

fn member(job: &Job) -> Member {
    let group = job.batch.as_ref();
    Member {
        job: job.id,
        name: group.map(|it| it.key.clone()).or_else(|| job.name.clone()),
        group: group.map(|it| (it.id, it.group)),
    }
}

/// Notes what a new job depends on, before it is durable, so that no end is missed.
pub(super) async fn link(shared: &Arc<Shared>, job: &Job) -> Result<Option<Link>, Unlinked> {
    let linked = link_all(shared, std::iter::once(job)).await;
    let mut links = linked.map_err(|(_, unlinked)| unlinked)?;
    Ok(links.pop())
}

/// The same for jobs that come together; the error says which of them has it. What several of them name is looked up
/// once.
pub(super) async fn link_all(
    shared: &Arc<Shared>,
    jobs: impl Iterator<Item = &Job>,
) -> Result<Vec<Link>, (usize, Unlinked)> {
    let mut links = Vec::new();
    let mut seen = HashSet::new();
    let mut named = Vec::new();
    for (number, job) in jobs.enumerate() {
        if job.depends_on.is_empty() {
            continue;
        }
        let mut account = shared.chains.account();
        let needs = account.needs(&job.depends_on);
        let unknown = |place| (number, Unlinked::Unknown(place));
        account.add(member(job), &needs).map_err(unknown)?;
        for (place, (target, _)) in needs.into_iter().enumerate() {
            // Its own batch is in the account.
            if !matches!(target, Target::Group(..)) && seen.insert(target) {
                named.push((target, number, place));
            }
        }
        links.push(Link {
            shared: shared.clone(),
            job: Some(job.id),
        });
    }
    for (target, number, place) in named {
        let found = look_up(shared, target).await;
        match found.map_err(|error| (number, Unlinked::Store(error)))? {
            Found::Lives => {}
            Found::Ended(ended) => settle(shared, target, &ended),
            Found::Gone => return Err((number, Unlinked::Unknown(place))),
        }
    }
    Ok(links)
}

async fn look_up(shared: &Shared, target: Target) -> Result<Found, StoreError> {
    match target {
        // Its batch is in the account.
        Target::Group(..) => Ok(Found::Lives),
        Target::Batch(id) => Ok(match shared.store.batches().get(id).await? {
            Some(batch) if batch.state.is_terminal() => Found::Ended(Ended {
                who: format!("batch {id}"),
                state: batch.state,
            }),
            Some(_) => Found::Lives,
            None => Found::Gone,
        }),
        Target::Job(id) => match shared.get(id).await {
            Ok(job) if job.state.is_terminal() => Ok(Found::Ended(Ended::job(&job, job.state))),
            Ok(_) => Ok(Found::Lives),
            Err(LookupError::NoSuchJob) => Ok(Found::Gone),
            Err(LookupError::Store(error)) => Err(error),
        },
    }
}

fn settle(shared: &Arc<Shared>, target: Target, ended: &Ended) {
    let mut effects = Effects::default();
    let mut account = shared.chains.account();
    account.settle(target, ended, &mut effects);
    follow_up(shared, &account, effects);
}

/// Puts into effect what follows; the caller grants.
fn follow_up(shared: &Arc<Shared>, _account: &MutexGuard<'_, Account>, effects: Effects) {
    for (id, unmet) in effects.nearer {
        shared.room.amend(id, |ticket| ticket.depends = unmet);
    }
    for (id, why) in effects.doomed {
        end_doomed(shared, id, why);
    }
    if let Some((id, which, why)) = effects.failing {
        batches::fail(shared, id, which, why);
    }
}

/// A job waits in the room from now on, with as many ends ahead of it as it has dependencies: those are not counted
/// any more that have ended meanwhile. The caller grants.
pub(super) fn linked(shared: &Arc<Shared>, id: JobId) {
    let account = shared.chains.account();
    let (unmet, doom) = account.standing(id);
    let doom = doom.map(str::to_owned);
    shared.room.amend(id, |ticket| ticket.depends = unmet);
    if let Some(why) = doom {
        end_doomed(shared, id, why);
    }
}

fn end_doomed(shared: &Arc<Shared>, id: JobId, why: String) {
    let stop = Stop {
        reason: Some(why),
        ..Stop::for_cause(Cause::DependencyFailed)
    };
    let asking = shared.clone();
    shared.spawn(async move { asking.see_stopped(id, stop).await });
}

/// A job's end is durable: lets those go that waited for it, and ends those that can never start now.
pub(super) fn end_is_known(shared: &Arc<Shared>, job: &Job) {
    let is_free = {
        let mut account = shared.chains.account();
        let effects = account.ended(&member(job), job.state);
        let is_free = effects.nearer.iter().any(|(_, unmet)| *unmet == 0);
        follow_up(shared, &account, effects);
        is_free
    };
    if is_free {
        shared.grant();
    }
}

/// At a server's start, once all jobs are where they belong: what has ended before it.
pub(super) async fn settle_all(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let targets = shared.chains.account().targets();
    for target in targets {
        let is_live = match target {
            Target::Job(id) => {
                shared.room.any_state(id).is_some() || shared.room.look(|it| it.waits(id))
            }
            Target::Batch(_) => false,
            Target::Group(id, number) => {
                let mut effects = Effects::default();
                let mut account = shared.chains.account();
                if account.has_group(id, number) {
                    account.settle_group(id, number, &mut effects);
                } else {
                    let words = format!("batch {id} is gone");
                    account.lost(target, &words, &mut effects);
                }
                continue;
            }
        };
        let found = if is_live {
            Found::Lives
        } else {
            look_up(shared, target).await?
        };
        let mut effects = Effects::default();
        let mut account = shared.chains.account();
        match found {
            Found::Lives => {}
            Found::Ended(ended) => account.settle(target, &ended, &mut effects),
            Found::Gone => {
                let words = "what it depends on is gone";
                account.lost(target, words, &mut effects);
            }
        }
    }
    let (waiters, failing) = {
        let account = shared.chains.account();
        (account.waiters(), account.failing())
    };
    for id in waiters {
        linked(shared, id);
    }
    for (id, which) in failing {
        batches::fail(shared, id, which, "a job of the batch failed".to_owned());
    }
    Ok(())
}
