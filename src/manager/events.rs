//! What has happened to jobs, as the store has it.

use tokio::sync::watch;

use super::{Manager, RequestError};
use job::JobId;
use job::event::Cursor;
use store::{EventPage, EventQuery};

impl Manager {
    /// One page of events, of all jobs or of one that exists.
    pub async fn events(&self, query: EventQuery) -> Result<EventPage, RequestError> {
        if let Some(job) = query.job
            && self.shared.room.state(job).is_none()
        {
            self.shared.get(job).await?;
        }
        Ok(self.shared.store.events(query).await?)
    }

    /// Tells as there are new events, of all jobs or of one. A hint to look; closed when the job is
    /// removed or the service ends.
    #[must_use]
    pub fn news(&self, job: Option<JobId>) -> watch::Receiver<Cursor> {
        self.shared.store.news(job)
    }

    /// Ends every subscription to news: the service ends.
    pub fn end_news(&self) {
        self.shared.store.end_news();
    }

    /// What tells this service's events from those of others, as a URI.
    #[must_use]
    pub fn event_source(&self) -> &str {
        self.shared.store.source()
    }
}
