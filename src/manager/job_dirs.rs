//! What jobs have on disk besides their rows: their records and their output. What is in them is not known here.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statvfs::fstatvfs;

use super::link::MonitorLink;
use job::pty::Size;
use job::time::Timestamp;
use job::{Job, JobId, OutputTotals};
use linux::procfs::ProcessIdentity;
use protocol::output;
use protocol::record;

/// The directory of the jobs' directories.
#[derive(Debug)]
pub(super) struct JobDirs {
    jobs: OwnedFd,
    damaged_records: AtomicU64,
    untidied: Mutex<Untidied>,
    /// The jobs that are over and whose directories are kept for others.
    spares: Mutex<Vec<JobId>>,
}

/// The most directories that are kept: as many as there are monitors without a job.
const MOST_SPARES: usize = 32;

/// The most directories that are looked at again since somebody was reading there.
const MOST_READ: usize = 1000;

/// Jobs that are over and whose records are still there.
#[derive(Debug, Default)]
struct Untidied {
    jobs: Vec<Over>,
    /// Those that somebody reads, whose output is in the store.
    read: Vec<Over>,
    /// Somebody removes them.
    is_tidying: bool,
}

/// A job that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    pub(super) job: JobId,
    /// Its directory may be another job's: see [`record::set_aside`].
    pub(super) is_spare: bool,
    /// Its output is in the store.
    pub(super) is_output_stored: bool,
    /// Another attempt may come, since a hub may give a node the same job again; and the leader of this one, if there was one.
    pub(super) may_return: bool,
    pub(super) leader: Option<ProcessIdentity>,
}

impl Over {
    pub(super) fn of(job: &Job, is_spare: bool, is_output_stored: bool) -> Self {
        Self {
            job: job.id,
            is_spare,
            is_output_stored,
            may_return: job.claim.is_some(),
            leader: job.process.as_ref().map(|it| ProcessIdentity {
                pid: it.pid,
                start_ticks: it.start_ticks,
            }),
        }
    }
}

impl JobDirs {
    pub(super) fn new(jobs: OwnedFd) -> Self {
        Self {
            jobs,
            damaged_records: AtomicU64::new(0),
            untidied: Mutex::default(),
            spares: Mutex::default(),
        }
    }

    /// Are they at this path? Not if they were moved or removed since they were opened.
    pub(super) fn are_at(&self, path: &Path) -> bool {
        let (Ok(own), Ok(there)) = (fstat(&self.jobs), stat(path)) else {
            return false;
        };
        (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)
    }

    /// The jobs that have a directory.
    pub(super) async fn all(self: &Arc<Self>) -> io::Result<HashSet<JobId>> {
        let listing = self.clone();
        let found = tokio::task::spawn_blocking(move || listing.names());
        let found = found.await.map_err(io::Error::other)??;
        Ok(found.into_iter().collect())
    }

    /// The jobs whose directories hold a record. Blocks.
    pub(super) fn untidy(&self) -> Vec<JobId> {
        let mut ids = self.names().unwrap_or_default();
        ids.retain(|id| record::is_untidy(self.jobs.as_fd(), *id));
        ids
    }

    fn names(&self) -> io::Result<Vec<JobId>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut jobs = Dir::openat(&self.jobs, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in jobs.iter() {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            names.extend(name.and_then(|name| name.parse::<JobId>().ok()));
        }
        Ok(names)
    }

    /// Reads a job's record from its directory; `Ok(None)` if there is neither the one nor the other.
    pub(super) fn read_record(&self, id: JobId) -> io::Result<Option<record::Found>> {
        match record::open_directory(self.jobs.as_fd(), id) {
            Ok(directory) => record::read(directory.as_fd(), id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Connects to the job's monitor, which has lost its server.
    pub(super) fn connect(&self, id: JobId) -> io::Result<MonitorLink> {
        let directory = record::open_directory(self.jobs.as_fd(), id)?;
        MonitorLink::connect(directory.as_fd())
    }

    /// Removes what a launch without a monitor left; `false` if a program may run or have run.
    pub(super) async fn discard(self: &Arc<Self>, id: JobId) -> bool {
        match self.apart(move |jobs| record::discard(jobs, id)).await {
            Some(Ok(is_gone)) => is_gone,
            Some(Err(error)) => {
                tracing::warn!(job.id = %id, %error, "what a launch of job {id} left cannot be removed: {error}");
                false
            }
            None => false,
        }
    }

    /// The job with the output that it has written up to now; its monitor reports only changes.
    pub(super) async fn with_present_output(self: &Arc<Self>, job: Arc<Job>) -> Arc<Job> {
        let Some(mut reader) = self.output(job.id).await else {
            return job;
        };
        let totals = tokio::task::spawn_blocking(move || reader.totals()).await;
        match totals {
            Ok(Ok(totals))
                if !job.output.complete && totals.next_offset >= job.output.next_offset =>
            {
                let mut job = (*job).clone();
                job.output = OutputTotals {
                    complete: false,
                    ..totals
                };
                Arc::new(job)
            }
            Ok(Ok(_) | Err(_)) | Err(_) => job,
        }
    }

    pub(super) async fn output(self: &Arc<Self>, id: JobId) -> Option<output::Reader> {
        let opened = self.apart(move |jobs| {
            let directory = record::open_to_read(jobs, id)?;
            output::Reader::open(directory)
        });
        opened.await?.ok()
    }

    /// Makes the job's output durable, which its monitor has left to the server.
    pub(super) async fn sync_output(self: &Arc<Self>, id: JobId) {
        let synced =
            self.apart(move |jobs| record::open_directory(jobs, id).and_then(output::sync));
        if let Some(Err(error)) = synced.await {
            tracing::warn!(job.id = %id, %error, "the output of job {id} may not be on disk: {error}");
        }
    }

    /// The sizes that the job's terminal got, and when.
    pub(super) async fn sizes(self: &Arc<Self>, id: JobId) -> io::Result<Vec<(Timestamp, Size)>> {
        let read = self.apart(move |jobs| match record::open_to_read(jobs, id) {
            Ok(directory) => output::sizes::read(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        });
        let panicked = || Err(io::Error::other("reading the sizes panicked"));
        read.await.unwrap_or_else(panicked)
    }

    /// Removes all that finished jobs have on disk.
    pub(super) async fn remove(self: &Arc<Self>, ids: Vec<JobId>) {
        let removed = self.apart(move |jobs| {
            for id in ids {
                // Held to the end, so that it becomes no other job's. Where it cannot be had, it is just being removed.
                let Ok(directory) = record::open_to_read(jobs, id) else {
                    continue;
                };
                if let Err(error) = output::remove(&directory)
                    .and_then(|()| record::remove_damaged(&directory))
                    .and_then(|()| record::remove(jobs, id))
                {
                    tracing::warn!(job.id = %id, %error, "the output of job {id} could not be removed: {error}");
                }
            }
            linux::failpoint::hit("purge.removed");
        });
        removed.await;
    }

    /// Removes a job's record, and its directory where nothing else is in it.
    pub(super) async fn remove_record(self: &Arc<Self>, id: JobId) {
        let dirs = self.clone();
        // It has told what there was to tell.
        let _ = tokio::task::spawn_blocking(move || dirs.remove_record_now(id)).await;
    }

    /// The same, of a job that is over, or its directory is kept for another: once this has returned, or soon after. One caller
    /// at a time does it for all, since handing each to a thread that may block costs more than the removal.
    pub(super) async fn tidy(self: &Arc<Self>, over: Over) {
        {
            let mut untidied = self.untidied();
            untidied.jobs.push(over);
            if std::mem::replace(&mut untidied.is_tidying, true) {
                return;
            }
        }
        loop {
            let jobs = std::mem::take(&mut self.untidied().jobs);
            let dirs = self.clone();
            // Those of a removal that panicked are left to the next server.
            let _ = tokio::task::spawn_blocking(move || {
                for over in jobs {
                    linux::failpoint::hit("record.removing");
                    dirs.tidy_now(over);
                    linux::failpoint::hit("record.removed");
                }
            })
            .await;
            let mut untidied = self.untidied();
            if untidied.jobs.is_empty() {
                untidied.is_tidying = false;
                return;
            }
        }
    }

    /// Those that somebody was reading, tried again.
    pub(super) async fn tidy_again(self: &Arc<Self>) {
        let read = std::mem::take(&mut self.untidied().read);
        for over in read {
            self.tidy(over).await;
        }
    }

    fn tidy_now(&self, over: Over) {
        if over.may_return && self.has_another(over) {
            return;
        }
        if over.is_spare && self.set_aside(over) {
            return;
        }
        if over.is_output_stored {
            match record::remove_over(self.jobs.as_fd(), over.job) {
                Ok(true) => return,
                Ok(false) => {
                    let read = &mut self.untidied().read;
                    if read.len() < MOST_READ {
                        read.push(over);
                        return;
                    }
                }
                Err(error) => {
                    let id = over.job;
                    tracing::warn!(job.id = %id, %error, "the directory of job {id} could not be removed: {error}");
                }
            }
        }
        self.remove_record_now(over.job);
    }

    /// Is the directory another attempt's by now, or is one just being made? Blocks.
    fn has_another(&self, over: Over) -> bool {
        let opened = record::open_directory(self.jobs.as_fd(), over.job);
        let found = opened.and_then(|directory| record::read(directory.as_fd(), over.job));
        found.is_ok_and(|found| {
            let newest = found.and_then(|it| it.record);
            newest.is_none_or(|it| it.leader.map(|leader| leader.identity) != over.leader)
        })
    }

    /// Keeps the directory of a job that is over for another; `false` if that cannot be. Blocks.
    fn set_aside(&self, over: Over) -> bool {
        if self.spares().len() >= MOST_SPARES {
            return false;
        }
        let kept = record::set_aside(self.jobs.as_fd(), over.job, over.is_output_stored);
        let is_kept = kept.is_ok_and(|is_kept| is_kept);
        if is_kept {
            self.spares().push(over.job);
        }
        is_kept
    }

    /// A job that is over and whose directory the next job may have.
    pub(super) fn take_spare(&self) -> Option<JobId> {
        self.spares().pop()
    }

    /// Removes the directories that an earlier server has kept. Blocks.
    pub(super) fn remove_spares(&self) {
        if let Err(error) = record::remove_spares(self.jobs.as_fd()) {
            tracing::warn!(%error, "directories that an earlier server has kept could not be removed: {error}");
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<JobId>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untidied(&self) -> MutexGuard<'_, Untidied> {
        self.untidied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a job's record, and its directory where nothing else is in it. Blocks.
    pub(super) fn remove_record_now(&self, id: JobId) {
        if let Err(error) = record::remove(self.jobs.as_fd(), id) {
            tracing::warn!(job.id = %id, %error, "the record of job {id} could not be removed: {error}");
        }
    }

    /// Puts a damaged record aside and counts it.
    pub(super) fn quarantine(&self, id: JobId) {
        self.damaged_records.fetch_add(1, Ordering::Relaxed);
        tracing::error!(job.id = %id, "the record of job {id} is damaged and was put aside as record.damaged");
        if let Err(error) = record::quarantine(self.jobs.as_fd(), id) {
            tracing::error!(job.id = %id, %error, "the damaged record of job {id} could not be put aside: {error}");
        }
    }

    /// How many records this server has found damaged.
    pub(super) fn damaged_records(&self) -> u64 {
        self.damaged_records.load(Ordering::Relaxed)
    }

    /// Free space for output, unless the file system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.disk().map(|(free, _)| free)
    }

    /// Free space for output, and all of it.
    pub(super) fn disk(&self) -> Option<(u64, u64)> {
        let space = fstatvfs(&self.jobs).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
        Some((bytes(space.blocks_available()), bytes(space.blocks())))
    }

    /// How many files can still be made, where the file system has a number of them.
    pub(super) fn free_files(&self) -> Option<u64> {
        let space = fstatvfs(&self.jobs).ok()?;
        (space.files() > 0).then(|| space.files_available())
    }

    /// Does what may block on the disk where it keeps nobody waiting; `None` if that panicked.
    async fn apart<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(BorrowedFd<'_>) -> R + Send + 'static,
    ) -> Option<R> {
        let dirs = self.clone();
        tokio::task::spawn_blocking(move || work(dirs.jobs.as_fd()))
            .await
            .ok()
    }
}
