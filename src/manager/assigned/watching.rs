//! What is reported of a job: how it is, and what has been told of it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use job::event::{Cursor, Event, What};
use job::{Job, JobId};
use protocol::wire::link::{Happened, Report};
use store::{EventQuery, Store, StoreError, Telling};

/// The most events that are read for a report.
const EVENTS: usize = 1000;

/// What is told of a job from a moment on.
#[derive(Debug)]
pub struct Listening(pub(super) mpsc::UnboundedReceiver<Telling>);

/// A subscription to a job of a hub.
#[derive(Debug)]
pub struct Watching {
    pub(super) state: watch::Receiver<Arc<Job>>,
    tellings: mpsc::UnboundedReceiver<Telling>,
    /// What has been told and not yet reported.
    told: Vec<Telling>,
    /// Up to where what was told has been read from the store; nothing if it has to be. What is told after that comes here.
    read: Option<Cursor>,
}

impl Watching {
    pub(super) fn new(
        state: watch::Receiver<Arc<Job>>,
        Listening(tellings): Listening,
        is_new: bool,
    ) -> Self {
        Self {
            state,
            tellings,
            told: Vec::new(),
            read: is_new.then_some(0),
        }
    }

    /// What has been told is read from the store again.
    pub(super) fn read_again(&mut self) {
        self.read = None;
    }

    /// Ends when there may be something to report; never for a job that is over and has been reported.
    pub async fn changed(&mut self) {
        let state = async {
            if self.state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let told = async {
            match self.tellings.recv().await {
                Some(telling) => telling,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = state => {}
            telling = told => self.told.push(telling),
        }
    }

    /// What has happened to the job since `seen` and concerns the hub, and where that ends.
    pub(super) async fn told(
        &mut self,
        store: &Store,
        job: JobId,
        seen: Cursor,
    ) -> Result<(Vec<Event>, Cursor), StoreError> {
        let (mut events, mut last) = (Vec::new(), seen);
        if self.read.is_none() {
            let page = read(store, job, seen).await?;
            self.read = (!page.more).then_some(page.next);
            last = page.events.last().map_or(seen, |(cursor, _)| *cursor);
            let read = page.events.into_iter().map(|(_, event)| event);
            events.extend(read.filter(concerns_hub));
        }
        let Some(read) = self.read else {
            return Ok((events, last));
        };
        while let Ok(telling) = self.tellings.try_recv() {
            self.told.push(telling);
        }
        for telling in self.told.drain(..).filter(|it| it.cursor > read) {
            events.extend(Some(telling.event()?).filter(concerns_hub));
            last = telling.cursor;
        }
        Ok((events, last))
    }
}

/// The hub has accepted the job itself, and has asked for each change.
fn concerns_hub(event: &Event) -> bool {
    !matches!(event.what, What::Created { .. } | What::Changed)
}

async fn read(store: &Store, job: JobId, seen: Cursor) -> Result<store::EventPage, StoreError> {
    let mut after = (seen > 0).then_some(seen);
    loop {
        let page = store.events(EventQuery {
            job: Some(job),
            after,
            limit: EVENTS,
        });
        let page = page.await?;
        if !page.expired {
            return Ok(page);
        }
        // They are not kept any more: from the oldest that is.
        after = None;
    }
}

/// A job as it is, with events and where they end.
pub(super) fn report_of(job: &Job, events: Vec<Event>, seen: Cursor) -> Report {
    let mut job = job.clone();
    if let Some(process) = &mut job.process {
        // It means something on this machine alone.
        process.unwatched = None;
    }
    let events = events
        .into_iter()
        .filter_map(|event| {
            Some(Happened {
                at: event.at,
                state: event.state?,
                attempt: event.attempt?,
                what: event.what,
            })
        })
        .collect();
    Report {
        job,
        events,
        seen,
        answers: Vec::new(),
        unconfirmed: false,
    }
}
