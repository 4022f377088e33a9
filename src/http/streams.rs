//! What lasts: answers that continue as their job does, and connections that have become WebSockets.
//!
//! It counts them together, knows who types into which job, and runs the WebSockets to their end. What they
//! carry is not known here.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::problem::ApiError;
use job::JobId;

/// A conversation over a WebSocket, from its beginning to its end.
pub(super) type Conversation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What every handler has of them.
#[derive(Clone, Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    most: usize,
    writers: Arc<Mutex<HashSet<JobId>>>,
    begun: mpsc::UnboundedSender<Conversation>,
    ending: watch::Receiver<bool>,
}

/// Runs what was begun; whoever serves the API drives it to its end.
#[derive(Debug)]
pub(crate) struct Conversations {
    begun: mpsc::UnboundedReceiver<Conversation>,
    ending: watch::Sender<bool>,
}

/// One of the places for streams, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(
    #[expect(dead_code, reason = "it is held, not used")] OwnedSemaphorePermit,
);

/// The right to type into a job, until it is dropped.
#[derive(Debug)]
pub(super) struct InputLock {
    writers: Arc<Mutex<HashSet<JobId>>>,
    id: JobId,
}

impl Streams {
    /// Places for so many, and what runs those that are WebSockets.
    pub(crate) fn new(most: usize) -> (Self, Conversations) {
        let (begin, begun) = mpsc::unbounded_channel();
        let (end, ending) = watch::channel(false);
        let streams = Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            writers: Arc::default(),
            begun: begin,
            ending,
        };
        (streams, Conversations { begun, ending: end })
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    pub(super) fn permit(&self) -> Result<Permit, ApiError> {
        let permit = self.places.clone().try_acquire_owned();
        permit
            .map(Permit)
            .map_err(|_| ApiError::TooManyStreams { most: self.most })
    }

    /// Makes the caller the one who types into this job; `None` if somebody else is.
    pub(super) fn writer(&self, id: JobId) -> Option<InputLock> {
        let is_free = locked(&self.writers).insert(id);
        is_free.then(|| InputLock {
            writers: self.writers.clone(),
            id,
        })
    }

    /// Has a conversation run to its end. After the end of the service there is none.
    pub(super) fn begin(&self, conversation: impl Future<Output = ()> + Send + 'static) {
        let _ = self.begun.send(Box::pin(conversation));
    }

    /// Resolves when every conversation is to end.
    pub(super) async fn ended(&self) {
        let _ = self.ending.clone().wait_for(|ending| *ending).await;
    }
}

impl Drop for InputLock {
    fn drop(&mut self) {
        locked(&self.writers).remove(&self.id);
    }
}

/// Held for a look-up or an insertion, and never over an await.
fn locked(writers: &Mutex<HashSet<JobId>>) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
    writers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Conversations {
    /// Runs conversations until `closing` says so; then they have `last_words` to end.
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>, last_words: Duration) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                begun = self.begun.recv() => match begun {
                    Some(conversation) => drop(running.spawn(conversation)),
                    None => break,
                },
                Some(ended) = running.join_next() => log_panic(&ended),
                _ = closing.wait_for(|closing| *closing) => break,
            }
        }
        self.ending.send_replace(true);
        let end = tokio::time::Instant::now() + last_words;
        // One that becomes a WebSocket only now is told, too; none can, once nobody serves requests any more.
        let mut may_begin = true;
        while may_begin || !running.is_empty() {
            tokio::select! {
                begun = self.begun.recv(), if may_begin => match begun {
                    Some(conversation) => drop(running.spawn(conversation)),
                    None => may_begin = false,
                },
                Some(ended) = running.join_next() => log_panic(&ended),
                () = tokio::time::sleep_until(end) => break,
            }
        }
        running.shutdown().await;
    }
}

fn log_panic(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a conversation over a WebSocket panicked: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let (streams, _conversations) = Streams::new(2);
        let places = [streams.permit().unwrap(), streams.permit().unwrap()];
        assert_eq!(streams.permit().unwrap_err().code(), "too_many_streams");
        drop(places);
        assert!(streams.permit().is_ok());
    }

    #[test]
    fn one_types_at_a_time() {
        let (streams, _conversations) = Streams::new(1);
        let (one, other) = (JobId::generate(), JobId::generate());
        let first = streams.writer(one).unwrap();
        assert!(streams.writer(one).is_none());
        assert!(streams.writer(other).is_some());
        drop(first);
        assert!(streams.writer(one).is_some());
    }

    #[tokio::test]
    async fn conversations_are_told_of_the_end_and_joined() {
        let (streams, conversations) = Streams::new(1);
        let (close, closing) = watch::channel(false);
        let (said, mut heard) = mpsc::unbounded_channel();
        for _ in 0..2 {
            let (told, said) = (streams.clone(), said.clone());
            streams.begin(async move {
                told.ended().await;
                said.send("polite").unwrap();
            });
        }
        streams.begin(async move {
            std::future::pending::<()>().await;
            said.send("never").unwrap();
        });
        close.send_replace(true);
        conversations.run(closing, Duration::from_millis(50)).await;
        assert_eq!(heard.recv().await, Some("polite"));
        assert_eq!(heard.recv().await, Some("polite"));
        assert_eq!(heard.recv().await, None);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_once_no_conversation_can_begin() {
        let (streams, conversations) = Streams::new(1);
        let (close, closing) = watch::channel(false);
        close.send_replace(true);
        drop(streams);
        let last_words = Duration::from_secs(3600);
        let over = conversations.run(closing, last_words);
        tokio::time::timeout(Duration::from_secs(60), over)
            .await
            .unwrap();
    }
}
