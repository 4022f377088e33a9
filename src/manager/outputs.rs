//! Where the output of a job is: in the files of its directory, or in the store once it is over, if it is short. The newest of
//! that is in memory as well, since a client that waits for a short job reads its output at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RequestError;
use super::shared::Shared;
use job::{Job, JobId};
use protocol::output::{Reader, SHORT, Short};
use store::StoreError;

/// How many are kept in memory, of at most [`SHORT`] bytes each.
const RECENT: usize = 64;

/// The short output of the jobs that have ended last.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(JobId, Arc<Short>)>>);

impl Recent {
    fn all(&self) -> MutexGuard<'_, VecDeque<(JobId, Arc<Short>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is in the store by now.
    pub(super) fn remember(&self, id: JobId, short: Arc<Short>) {
        let mut all = self.all();
        if all.len() == RECENT {
            all.pop_front();
        }
        all.push_back((id, short));
    }

    /// They are removed.
    pub(super) fn forget(&self, ids: &[JobId]) {
        self.all().retain(|(id, _)| !ids.contains(id));
    }

    fn of(&self, id: JobId) -> Option<Arc<Short>> {
        let all = self.all();
        let mut newest_first = all.iter().rev();
        newest_first
            .find(|(it, _)| *it == id)
            .map(|(_, it)| it.clone())
    }
}

/// As it goes into the store.
pub(super) fn encode(short: &Short) -> Arc<[u8]> {
    short.to_bytes().into()
}

/// Reads the output of a job as it is kept now. What its record says that there was is known of one that is over.
pub(super) async fn of(shared: &Arc<Shared>, job: &Job) -> Result<Reader, RequestError> {
    if shared.is_there(job) {
        return Err(RequestError::NodeUnreachable);
    }
    if !job.state.is_terminal() {
        let reader = started(shared, job.id).await?;
        return Ok(reader.unwrap_or_else(Reader::empty));
    }
    let totals = job.output;
    let may_be_short = totals.first_offset == 0 && (1..=SHORT).contains(&totals.next_offset);
    // The files of such a job may be there as well, and are not synced.
    let short = match may_be_short {
        true => stored(shared, job.id).await?,
        false => None,
    };
    let mut reader = match short {
        Some(short) => Reader::of_short(short),
        None => {
            let in_files = shared.job_dirs.output(job.id).await;
            in_files.unwrap_or_else(Reader::empty)
        }
    };
    reader.expect(totals);
    Ok(reader)
}

/// The same of a job that may be running; `None` while it has nothing that output could be in.
pub(super) async fn started(shared: &Arc<Shared>, id: JobId) -> Result<Option<Reader>, StoreError> {
    if let Some(reader) = shared.job_dirs.output(id).await {
        return Ok(Some(reader));
    }
    // It may have ended in this moment, and another job has its directory.
    Ok(stored(shared, id).await?.map(Reader::of_short))
}

async fn stored(shared: &Arc<Shared>, id: JobId) -> Result<Option<Arc<Short>>, StoreError> {
    if let Some(short) = shared.recent.of(id) {
        return Ok(Some(short));
    }
    let Some(bytes) = shared.store.outputs().get(id).await? else {
        return Ok(None);
    };
    match Short::from_bytes(&bytes) {
        Ok(short) => Ok(Some(Arc::new(short))),
        Err(error) => {
            tracing::error!(job.id = %id, %error, "the stored output of job {id} is damaged: {error}");
            Ok(None)
        }
    }
}
