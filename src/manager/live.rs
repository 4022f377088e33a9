//! How a live job is found, woken, asked and followed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::api::LookupError;
use super::readers::Readers;
use super::room::{Awake, Place, Waker};
use super::runner::{Held, JobRequest, Reply, Runner, Told};
use super::shared::{STORE_RETRY, Shared};
use super::time::until;
use super::{Follow, RequestError, mirror};
use job::life::{Refusal, Stop};
use job::spec::OnLimit;
use job::{Job, JobId};
use store::StoreError;

/// How many requests may wait for a job's task.
const REQUESTS: usize = 16;

/// How soon a job is asked again that could not be stopped.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a job's monitor may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The same if the store fails meanwhile: what came of it is not told before it is stored.
const UNSTORED_LIMIT: Duration = Duration::from_secs(8);

impl Shared {
    /// Makes the job's task-to-be and its entry in the room; one that waits is granted by `slot`.
    pub(super) fn enlist(
        self: &Arc<Self>,
        job: Job,
        visible: bool,
        slot: Option<oneshot::Sender<()>>,
    ) -> Box<Runner> {
        let id = job.id;
        let job = Held::new(job);
        let (publish, state) = watch::channel(job.shown());
        let (requests, asked) = mpsc::channel(REQUESTS);
        let feed = Arc::new(watch::Sender::new(0));
        let waits = job.spec.output.on_limit == OnLimit::Wait;
        let readers = waits.then(Arc::<Readers>::default);
        let awake = Awake {
            state,
            feed: feed.clone(),
            readers: readers.clone(),
            requests,
        };
        self.room.enlist(id, awake, visible, slot);
        let told = Told {
            publish,
            feed,
            readers,
        };
        Box::new(Runner::new(self.clone(), job, told, asked))
    }

    /// Gives a waiting job a task, and is that task.
    pub(super) async fn wake(self: Arc<Self>, waker: Waker) {
        let Waker { job: id, done } = waker;
        loop {
            match self.store.unfinished_job(id).await {
                Ok(Some((job, secrets))) => {
                    let (slot, has_slot) = oneshot::channel();
                    let runner = self.enlist(self.outlived(job), true, Some(slot));
                    done.send_replace(Some(Ok(self.room.task(id))));
                    // It would hold the task itself.
                    drop(done);
                    return runner.go_on_waiting(has_slot, secrets).await;
                }
                Ok(None) => {
                    tracing::error!(job.id = %id, "job {id} waits and is not in the store");
                    self.room.withdraw(id);
                    self.room.forget(id);
                    done.send_replace(Some(Ok(None)));
                    return self.leave(id);
                }
                Err(error) => {
                    self.store_failed(&error);
                    if !self.room.stay_asleep(id) {
                        done.send_replace(Some(Err(error)));
                        return;
                    }
                    if self.shutdown.has_begun() {
                        return;
                    }
                    until(Some(Instant::now() + STORE_RETRY)).await;
                }
            }
        }
    }

    /// A waiting job as the store has it, with a version that no earlier server can have told.
    pub(super) fn outlived(&self, mut job: Job) -> Job {
        mirror::outlive_server(&mut job, self.started_at);
        job
    }

    /// What is to be held of a job that has a task, or waits and is woken for it; `None` for one that is over.
    pub(super) async fn awake(self: &Arc<Self>, id: JobId) -> Result<Option<Awake>, StoreError> {
        let mut woken = match self.room.find(id) {
            Place::Awake(awake) => return Ok(Some(awake)),
            Place::Nowhere => return Ok(None),
            Place::Waking(woken) => woken,
            Place::Asleep(waker) => {
                let woken = waker.done.subscribe();
                self.spawn(self.clone().wake(waker));
                woken
            }
        };
        // Closed without a word where the service ends.
        let Ok(woken) = woken.wait_for(Option::is_some).await else {
            return Ok(None);
        };
        woken.clone().unwrap_or(Ok(None))
    }

    pub(super) async fn get(&self, id: JobId) -> Result<Arc<Job>, LookupError> {
        match self.room.state(id) {
            Some(job) => Ok(job),
            None => self.stored(id).await,
        }
    }

    /// The job as it is now, with the output that it has written up to now.
    pub(super) async fn present(&self, id: JobId) -> Result<Arc<Job>, LookupError> {
        let job = self.get(id).await?;
        if job.state.is_terminal() || job.process.is_none() {
            return Ok(job);
        }
        Ok(self.job_dirs.with_present_output(job).await)
    }

    /// The same as [`Shared::get`] for a job that has just become durable under its idempotency key.
    pub(super) async fn get_any(&self, id: JobId) -> Result<Arc<Job>, LookupError> {
        match self.room.any_state(id) {
            Some(job) => Ok(job),
            None => self.stored(id).await,
        }
    }

    async fn stored(&self, id: JobId) -> Result<Arc<Job>, LookupError> {
        let job = self.store.get(id).await?.ok_or(LookupError::NoSuchJob)?;
        Ok(Arc::new(if job.state.is_terminal() {
            job
        } else {
            self.outlived(job)
        }))
    }

    /// Asks a live job's task; a job that is not live has finished, or never was. A monitor that does not answer in
    /// time, or whose answer cannot be stored, may still do what it was asked.
    pub(super) async fn ask(
        self: &Arc<Self>,
        id: JobId,
        request: impl FnOnce(Reply) -> JobRequest,
    ) -> Result<u64, RequestError> {
        let (reply, replied) = oneshot::channel();
        let request = Box::new(request(reply));
        if let Some(awake) = self.awake(id).await? {
            // Input is taken as fast as the job reads it. Of thousands that are asked at once, each has its time from when
            // its turn has come.
            let is_input = request.is_input();
            let asked_at = Instant::now();
            let limit = (!is_input).then(|| asked_at + ANSWER_LIMIT);
            let unstored = async {
                until((!is_input).then(|| asked_at + UNSTORED_LIMIT)).await;
                self.trouble.since(asked_at.into_std()).await
            };
            let asked = async {
                let _ = awake.requests.send(request).await;
                replied.await.ok()
            };
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                error = unstored => return Err(error.into()),
                () = until(limit) => return Err(RequestError::MonitorGone),
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
        let job = self.get(id).await?;
        Err(if job.state.is_terminal() {
            Refusal::Finished.into()
        } else {
            RequestError::MonitorGone
        })
    }

    /// Stops a job that nobody else sees to: asks until it has been told, or is over.
    pub(super) async fn see_stopped(self: &Arc<Self>, id: JobId, stop: Stop) {
        let mut was_said = false;
        loop {
            let asked = stop.clone();
            let asked = self.ask(id, |reply| JobRequest::Stop(asked, reply)).await;
            let error = match asked {
                Ok(_) | Err(RequestError::Refused(_) | RequestError::NoSuchJob) => return,
                Err(error) => error,
            };
            if !std::mem::replace(&mut was_said, true) {
                tracing::warn!(job.id = %id, %error, "job {id} could not be stopped yet, and is asked until it is: {error}");
            }
            if self.shutdown.has_begun() {
                return;
            }
            until(Some(Instant::now() + ASK_AGAIN)).await;
        }
    }

    /// Subscribes to a job's states and to the growth of its output.
    pub(super) async fn follow(self: &Arc<Self>, id: JobId) -> Result<Follow, LookupError> {
        if let Some(awake) = self.awake(id).await? {
            let follow = Follow {
                state: awake.state.clone(),
                output: Some(awake.feed.subscribe()),
                readers: awake.readers.clone(),
            };
            // A task that is over has published the end.
            let _ = awake.requests.send(Box::new(JobRequest::Follow)).await;
            return Ok(follow);
        }
        let (_, state) = watch::channel(self.get(id).await?);
        Ok(Follow {
            state,
            output: None,
            readers: None,
        })
    }
}
