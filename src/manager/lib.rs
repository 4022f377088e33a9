//! The job manager: admits, queues and launches jobs, mirrors what their monitors say, and is the only
//! writer of the store. It knows no HTTP.

mod admission;
mod adopt;
mod alarm;
mod change;
pub mod cloud_event;
mod events;
mod leftovers;
mod link;
pub mod metrics;
mod mirror;
mod processes;
mod queues;
mod readers;
mod resolve;
mod retention;
mod room;
mod runner;
mod shared;
mod survivors;
mod terms;
mod webhooks;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::metrics::{Metrics, Present};
pub use admission::{Claim, Contents, Reason, Rejection};
use job::life::{Refusal, Stop};
use job::pty::Size;
use job::query::{Filter, Order, Query};
use job::queue::OnConflict;
use job::sandbox::Baseline;
use job::spec::Scope;
use job::{Idempotency, Job, JobId, Signal, Spec, State};
use linux::cgroup::Home;
use linux::clock;
pub use processes::ProcessInfo;
pub use protocol::wire::messages::INPUT_BYTES;
use protocol::wire::messages::{Input, Request};
pub use queues::{QueueError, QueueState, Queues};
pub use readers::Reading;
use room::Awake;
use runner::{Acceptance, Ask};
use shared::Shared;
pub use shared::SupervisorSaid;
use store::{Inserted, Store};
pub use terms::{
    Actor, Follow, Info, NotReady, Page, RequestError, Submission, SubmitError, Submitted,
    Unavailable, Until,
};

/// How long an answer waits for a job's start: a program on a file system that hangs may take for ever.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// What the manager is started with.
#[derive(Debug)]
pub struct Setup {
    pub store: Store,
    /// The socket to the supervisor.
    pub supervisor: OwnedFd,
    pub supervisor_pid: u32,
    /// The directory of the jobs' directories.
    pub jobs: OwnedFd,
    pub boot_id: String,
    pub cgroup: Option<Home>,
    /// Why there is no cgroup.
    pub no_cgroup: Option<String>,
    pub restarts: u32,
    /// An earlier server was told to drain.
    pub draining: bool,
    pub max_running: usize,
    pub max_queued: usize,
    pub max_finished: u64,
    pub min_free_bytes: u64,
    pub deny_root_jobs: bool,
    /// Webhooks may go to private addresses.
    pub webhook_allow_private: bool,
    pub sandbox: Baseline,
    pub state_dir: PathBuf,
    pub work_dir: PathBuf,
}

/// A handle to the job manager; clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    shared: Arc<Shared>,
}

/// The manager's own tasks; whoever started it drives them to their end.
#[derive(Debug)]
pub struct Tasks(mpsc::UnboundedReceiver<shared::Task>);

impl Tasks {
    /// Runs every task that the manager spawns, until the manager is told to shut down and the last of
    /// them has ended.
    pub async fn run(mut self) {
        let mut running = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                task = self.0.recv() => match task {
                    Some(task) => drop(running.spawn(task)),
                    None => break,
                },
                Some(ended) = running.join_next() => log_panic(&ended),
            }
        }
        while let Some(ended) = running.join_next().await {
            log_panic(&ended);
        }
    }
}

fn log_panic(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the job manager panicked: {error}");
    }
}

/// How long a purge waits for the processes of a lost job at a time.
const SURVIVORS_PATIENCE: Duration = Duration::from_secs(60);

/// A page ends early where its jobs have more bytes than this; one without specs counts as `JOB_BYTES`.
const PAGE_BYTES: usize = 8 << 20;
const JOB_BYTES: usize = 1 << 10;

/// How many jobs are read at first, of which nobody knows yet how large they are.
const PAGE_BEGINNING: usize = 64;

impl Manager {
    /// Starts a manager: takes over what earlier servers left, and accepts jobs from then on.
    pub async fn start(setup: Setup) -> Result<(Self, Tasks), StartError> {
        let (spawner, tasks) = mpsc::unbounded_channel();
        let webhook_allow_private = setup.webhook_allow_private;
        let shared = Arc::new(Shared::new(setup, spawner)?);
        adopt::take_over(&shared).await?;
        alarm::start(&shared);
        retention::start(&shared);
        let mut shutdown = shared.shutdown.subscribe();
        let end = async move { drop(shutdown.changed().await) };
        let store = shared.store.clone();
        shared.spawn(webhooks::deliver(
            store,
            shared.metrics.clone(),
            webhook_allow_private,
            end,
        ));
        Ok((Self { shared }, Tasks(tasks)))
    }

    /// Tells the supervisor that requests are accepted.
    pub async fn announce_ready(&self) -> std::io::Result<()> {
        self.shared.supervisor.ready().await
    }

    /// Waits until the supervisor says that the service ends; the jobs' tasks see to it from then on,
    /// and [`Tasks::run`] ends with the last of them.
    pub async fn supervisor_said(&self) -> SupervisorSaid {
        self.shared.supervisor_said().await
    }

    /// Leaves every job to its monitor, and the queued ones to the store.
    pub fn leave_jobs(&self) {
        self.shared.leave_jobs();
    }

    /// The store, to be closed when everything else has ended.
    pub fn store(&self) -> Store {
        self.shared.store.clone()
    }

    /// Accepts a job: durable when this returns, started where a slot was free and 5 s were enough. Dropping the future
    /// after the job is durable takes nothing back.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        self.validate(&submission.spec).await?;
        self.ready().map_err(|reason| match reason {
            NotReady::Draining => SubmitError::Draining,
            NotReady::NoRoom => SubmitError::NoRoom,
        })?;
        let Submission {
            name,
            labels,
            mut spec,
            actor,
            rerun_of,
            idempotency,
            has_priority,
        } = submission;
        if !has_priority {
            let queue = self.shared.room.look(|it| it.settings(&spec.queue));
            spec.priority = queue.default_priority;
        }
        let policy = spec.concurrency.as_ref().map(|it| it.policy);
        let is_alone = policy == Some(OnConflict::Reject);
        let secrets = spec.secret_env.clone();
        for value in spec.secret_env.0.values_mut() {
            value.clear();
        }
        let job = Job {
            name,
            labels,
            rerun_of,
            ..Job::accepted(JobId::generate(), actor, Arc::new(spec), clock::wall())
        };
        let id = job.id;
        self.shared
            .room
            .promise(self.shared.room.ticket_of(&job), is_alone)?;
        let (answer, mut answered) = oneshot::channel();
        let runner = self.shared.enlist(job, false, None);
        self.shared.spawn(runner.accept(Acceptance {
            secrets,
            idempotency,
            answer,
        }));
        loop {
            match timeout(START_PATIENCE, &mut answered).await {
                Ok(answer) => return answer.unwrap_or(Err(SubmitError::Draining)),
                Err(_) => {
                    // It can be seen as soon as it is accepted.
                    if let Ok(job) = self.get(id).await {
                        let replayed = false;
                        return Ok(Submitted { job, replayed });
                    }
                }
            }
        }
    }

    /// The job that an earlier submission of this actor with this key made, whatever is true for new ones;
    /// `None` if there was no such submission, or its job is gone.
    pub async fn submitted(
        &self,
        actor: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Submitted>, SubmitError> {
        let id = match self.shared.store.submitted(actor, idempotency).await? {
            None | Some(Inserted::New) => return Ok(None),
            Some(Inserted::KeyReused) => return Err(SubmitError::KeyReused),
            Some(Inserted::Replay(id)) => id,
        };
        let found = self.shared.get_any(id).await;
        Ok(found.ok().map(|job| Submitted {
            job,
            replayed: true,
        }))
    }

    /// The queues.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues::of(self.shared.clone())
    }

    /// Checks what [`Manager::submit`] would check of the spec, and does nothing.
    pub async fn validate(&self, spec: &Spec) -> Result<(), SubmitError> {
        Ok(self.shared.check(spec).await?)
    }

    /// The job as it is now, with the output it has written up to now.
    pub async fn get(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        let job = self.shared.get(id).await?;
        if job.state.is_terminal() || job.process.is_none() {
            return Ok(job);
        }
        Ok(self.shared.with_present_output(job).await)
    }

    /// The job once it is as wanted, or as it is when `limit` has passed.
    pub async fn wait(
        &self,
        id: JobId,
        until: Until,
        limit: Duration,
    ) -> Result<Arc<Job>, RequestError> {
        if let Some(Awake { mut state, .. }) = self.shared.awake(id).await? {
            let reached = |job: &Arc<Job>| match until {
                Until::Finished => job.state.is_terminal(),
                Until::Started => !matches!(job.state, State::Queued | State::Starting),
                Until::VersionAfter(version) => job.version > version,
            };
            // A closed channel is a job that has ended: its last state is still there.
            if let Ok(Ok(job)) = timeout(limit, state.wait_for(reached)).await
                && job.state.is_terminal()
            {
                return Ok(job.clone());
            }
        }
        self.get(id).await
    }

    /// One page of jobs, live and finished.
    pub async fn list(&self, query: Query) -> Result<Page, RequestError> {
        let mut page = Page {
            jobs: Vec::new(),
            more: true,
        };
        let (mut bytes, mut at_once) = (0, PAGE_BEGINNING);
        // A part at a time, so that no more is in memory than what fits in one, and a little.
        while page.more && page.jobs.len() < query.limit && bytes < PAGE_BYTES {
            let limit = at_once.min(query.limit - page.jobs.len());
            let beyond = Query {
                limit: limit.saturating_add(1),
                after: page.jobs.last().map(|job| job.id).or(query.after),
                ..query.clone()
            };
            let mut jobs = self.matching(beyond).await?;
            match query.order {
                Order::CreatedAscending => jobs.sort_unstable_by_key(|job| job.id),
                Order::CreatedDescending => {
                    jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
                }
            }
            page.more = jobs.len() > limit;
            jobs.truncate(limit);
            for job in jobs {
                if bytes >= PAGE_BYTES {
                    page.more = true;
                    break;
                }
                bytes += JOB_BYTES + job.spec.text_bytes();
                page.jobs.push(job);
            }
            let each = bytes.div_ceil(page.jobs.len().max(1));
            at_once = (PAGE_BYTES.saturating_sub(bytes) / each.max(1)).max(1);
        }
        Ok(page)
    }

    /// How many jobs of each state match, and whether that is all of them. What moves meanwhile may be missed or
    /// counted twice.
    pub async fn counts(
        &self,
        filter: Filter,
        limit: u64,
    ) -> Result<Vec<(State, u64, bool)>, RequestError> {
        let (live, waiting) = self.live(&filter).await?;
        let finished = self.shared.store.count_by_state(filter, limit).await?;
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
    async fn live(&self, filter: &Filter) -> Result<(Vec<Arc<Job>>, Option<usize>), RequestError> {
        if *filter == Filter::default() {
            let waiting = self.shared.room.look(|admission| admission.waiting());
            return Ok((self.shared.room.states(), Some(waiting)));
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
        };
        Ok((self.matching(query).await?, None))
    }

    /// The jobs that match, of those that have ended or wait no more than a page; in no order.
    async fn matching(&self, query: Query) -> Result<Vec<Arc<Job>>, RequestError> {
        // Those with tasks first: a job that ends in between is then in both, and never in neither.
        let awake = self.shared.room.states();
        let mut has_task: HashSet<JobId> = awake.iter().map(|job| job.id).collect();
        let mut jobs = awake;
        jobs.retain(|job| query.is_after(job.id) && query.filter.matches(job));
        let surplus = has_task.len();
        let (queued, finished) = self.shared.store.list(query, surplus).await?;
        let waiting = queued.into_iter().filter(|job| has_task.insert(job.id));
        jobs.extend(waiting.map(|job| Arc::new(self.shared.outlived(job))));
        let ended: HashSet<JobId> = finished.iter().map(|job| job.id).collect();
        jobs.retain(|job| !ended.contains(&job.id));
        jobs.extend(finished.into_iter().map(Arc::new));
        Ok(jobs)
    }

    /// What a queued job waits for; `None` where it does not wait any more.
    #[must_use]
    pub fn why(&self, id: JobId) -> Option<Reason> {
        self.shared.room.why(id)
    }

    /// Asks for the job's end; idempotent. Returns the job as it is after the request was taken in.
    pub async fn stop(&self, id: JobId, stop: Stop) -> Result<Arc<Job>, RequestError> {
        let asked = stop.clone();
        let asked = self.shared.ask(id, |reply| Ask::Stop(asked, reply)).await;
        match asked {
            // To end what has ended is granted; a lost job may have left processes.
            Ok(_) | Err(RequestError::Refused(Refusal::Finished)) => {
                let job = self.get(id).await?;
                self.shared.end_survivors(&job, &stop).await;
                Ok(job)
            }
            Err(error) => Err(error),
        }
    }

    /// Stops the job, waits for its end, then removes record and output. Once this has been polled, all
    /// of it happens, whether the future is dropped or not.
    pub async fn purge(&self, id: JobId, stop: Stop) -> Result<(), RequestError> {
        let (answer, answered) = oneshot::channel();
        let manager = self.clone();
        self.shared.spawn(async move {
            let _ = answer.send(manager.purge_now(id, stop).await);
        });
        answered.await.unwrap_or(Err(RequestError::MonitorGone))
    }

    async fn purge_now(&self, id: JobId, stop: Stop) -> Result<(), RequestError> {
        let job = self.stop(id, stop).await?;
        if !job.state.is_terminal()
            && let Some(Awake { mut state, .. }) = self.shared.awake(id).await?
        {
            let _ = state.wait_for(|job| job.state.is_terminal()).await;
        }
        while !self.shared.survivors_ended(&job, SURVIVORS_PATIENCE).await {
            if self.shared.shutdown.borrow().is_some() {
                return Err(RequestError::MonitorGone);
            }
        }
        self.shared.purge(vec![id]).await
    }

    /// Sends a signal; returns how many processes it was delivered to.
    pub async fn signal(
        &self,
        id: JobId,
        signal: Signal,
        scope: Scope,
    ) -> Result<u64, RequestError> {
        let request = Request::Signal { signal, scope };
        self.shared
            .ask(id, |reply| Ask::Relay(request, reply))
            .await
    }

    /// Writes a packet of at most [`INPUT_BYTES`] to the job's standard input; returns the offset after it
    /// once the job's pipe has taken it. A packet that has been sent is written even where the future is
    /// dropped.
    pub async fn write_stdin(
        &self,
        id: JobId,
        offset: Option<u64>,
        bytes: &[u8],
        eof: bool,
    ) -> Result<u64, RequestError> {
        let request = Request::Stdin(Input {
            offset,
            bytes: bytes.to_vec(),
            eof,
        });
        self.shared
            .ask(id, |reply| Ask::Relay(request, reply))
            .await
    }

    /// Gives the job's terminal another size.
    pub async fn resize(&self, id: JobId, size: Size) -> Result<(), RequestError> {
        if self.shared.get(id).await?.spec.pty.is_none() {
            return Err(RequestError::NoTerminal);
        }
        let request = Request::Resize(size);
        let asked = self.shared.ask(id, |reply| Ask::Relay(request, reply));
        asked.await.map(drop)
    }

    /// The job's live processes, and those that a lost job has left.
    pub async fn processes(&self, id: JobId) -> Result<Vec<ProcessInfo>, RequestError> {
        let job = self.shared.get(id).await?;
        let tree = match &job.process {
            Some(process) if !job.state.is_terminal() => {
                let supervisor = self.shared.info().supervisor_pid;
                Some(processes::watched(id, process, supervisor))
            }
            Some(_) | None => self.shared.left_by(&job),
        };
        Ok(match tree {
            Some(tree) => processes::of(tree).await,
            None => Vec::new(),
        })
    }

    /// Is nothing left of a lost job? Waits for as long as `limit` where a stop has asked for its end.
    pub async fn survivors_ended(&self, job: &Job, limit: Duration) -> bool {
        self.shared.survivors_ended(job, limit).await
    }

    /// A reader of the job's output as kept now.
    pub async fn output(&self, id: JobId) -> Result<protocol::output::Reader, RequestError> {
        let job = self.shared.get(id).await?;
        let reader = self.shared.output(id).await;
        let mut reader = reader.unwrap_or_else(protocol::output::Reader::empty);
        if job.state.is_terminal() {
            reader.expect(job.output);
        }
        Ok(reader)
    }

    /// The same, or `None` while the job has no directory that output could be in.
    pub async fn started_output(&self, id: JobId) -> Option<protocol::output::Reader> {
        self.shared.output(id).await
    }

    /// Tells of the job's states and of new output. Nobody looks at the disk for that.
    pub async fn follow(&self, id: JobId) -> Result<Follow, RequestError> {
        self.shared.follow(id).await
    }

    /// What this instance is and can do.
    #[must_use]
    pub fn info(&self) -> Info {
        self.shared.info()
    }

    /// What operators count.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What [`Metrics::encode`] reports as it is now, as far as the manager knows it.
    pub async fn present(&self) -> Result<Present, RequestError> {
        let info = self.info();
        let (live, waiting) = self.live(&Filter::default()).await?;
        let count = |state: State| count_of(state, &live, waiting);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let unfinished = State::ALL.into_iter().filter(|state| !state.is_terminal());
        Ok(Present {
            jobs: unfinished
                .map(|state| (state.as_str(), number(count(state))))
                .collect(),
            limits: [
                ("running", number(info.max_running)),
                ("queued", number(info.max_queued)),
            ],
            blocked: number(live.iter().filter(|job| !job.survivors.is_empty()).count()),
            finished: self.shared.store.counts().finished,
            free_bytes: self.shared.free_bytes().unwrap_or_default(),
            draining: info.draining,
            restarts: u64::from(info.server_restarts),
            damaged_records: info.damaged_records,
            started_at: info.started_at,
            ..Present::default()
        })
    }

    /// May new jobs come? `Err` says why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.shared.ready()
    }
}

/// How many of the live jobs are in a state; `waiting` is the number of those that are queued, if only that is known.
fn count_of(state: State, live: &[Arc<Job>], waiting: Option<usize>) -> usize {
    match (state, waiting) {
        (State::Queued, Some(waiting)) => waiting,
        (_, _) => live.iter().filter(|job| job.state == state).count(),
    }
}

/// Why a manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] store::StoreError),
}
