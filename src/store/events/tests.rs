use std::sync::Arc;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::{Settings, Store, Tellings, tests};
use job::spec::Secrets;
use job::{Job, State, event};
use linux::clock;

fn open(keep: u64) -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open_with(&Settings {
        max_events: keep,
        ..Settings::new(&folder.path().join("store.db"))
    });
    (folder, store.unwrap())
}

async fn create(store: &Store) -> Job {
    let job = tests::job(State::Queued);
    let created = vec![Event::created(&job)];
    let job_in = Arc::new(job.clone());
    let inserted = store.insert(job_in, Secrets::default(), None, created);
    inserted.await.unwrap();
    job
}

async fn all(store: &Store, job: Option<JobId>, after: Option<Cursor>) -> EventPage {
    let limit = 1000;
    store
        .events(EventQuery { job, after, limit })
        .await
        .unwrap()
}

fn numbers(page: &EventPage) -> Vec<Cursor> {
    page.events.iter().map(|(cursor, _)| *cursor).collect()
}

#[tokio::test]
async fn events_come_back_in_the_order_in_which_they_were_told() {
    let (_folder, store) = open(1000);
    let mut news = store.news(None);
    let mut job = create(&store).await;
    assert_eq!(*news.borrow_and_update(), 1);
    job.state = State::Running;
    job.started_at = Some(clock::wall());
    store.tell(event::since(State::Queued, &job, clock::wall()));
    job.state = State::Succeeded;
    let finished = event::since(State::Running, &job, clock::wall());
    store
        .finish(Arc::new(job.clone()), finished.clone())
        .await
        .unwrap();
    assert!(news.has_changed().unwrap());
    let page = all(&store, Some(job.id), None).await;
    let kinds: Vec<Kind> = page.events.iter().map(|(_, it)| it.what.kind()).collect();
    assert_eq!(kinds, [Kind::Created, Kind::Started, Kind::Finished]);
    assert_eq!(numbers(&page), [1, 2, 3]);
    assert_eq!(page.events[2].1, finished[0]);
    assert!(page.over && !page.more && !page.expired);
    // What was told without a change went with the end: two transactions for three events.
    assert_eq!(store.stats().commits, 2);
}

#[tokio::test]
async fn who_listens_to_a_job_hears_what_is_durable_before_who_told_it_knows() {
    let (_folder, store) = open(1000);
    let mut job = tests::job(State::Queued);
    // A job need not be there to be listened to.
    let mut heard = Tellings(&store).of(job.id);
    let created = vec![Event::created(&job)];
    let job_in = Arc::new(job.clone());
    let inserted = store.insert(job_in, Secrets::default(), None, created);
    inserted.await.unwrap();
    let first = heard.try_recv().unwrap();
    assert_eq!(
        (first.cursor, first.event().unwrap().what.kind()),
        (1, Kind::Created)
    );
    create(&store).await;
    job.state = State::Succeeded;
    let events = vec![
        Event::of(&job, clock::wall(), What::Paused),
        event::since(State::Paused, &job, clock::wall()).remove(0),
    ];
    let finished = store.finish(Arc::new(job.clone()), events.clone());
    finished.await.unwrap();
    // Each has its own place, also in one commit with others: who has read up to there leaves it out.
    for (cursor, event) in (3..).zip(events) {
        let next = heard.try_recv().unwrap();
        assert_eq!((next.cursor, next.event().unwrap()), (cursor, event));
    }
    // What was not stored is not told.
    let stranger = Arc::new(tests::job(State::Running));
    let mut of_stranger = Tellings(&store).of(stranger.id);
    let changed = Event::of(&stranger, clock::wall(), What::Changed);
    let refused = store.update(stranger, vec![changed]).await;
    refused.unwrap_err();
    assert!(of_stranger.try_recv().is_err() && heard.try_recv().is_err());
    assert!(!Tellings(&store).are_owed());
    store.end_news();
    assert!(heard.recv().await.is_none());
}

#[tokio::test]
async fn what_is_told_alone_is_durable_soon() {
    let (_folder, store) = open(1000);
    let job = create(&store).await;
    let mut news = store.news(Some(job.id));
    store.tell(vec![Event::of(&job, clock::wall(), What::Paused)]);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), news.changed());
    waited.await.unwrap().unwrap();
    assert_eq!(numbers(&all(&store, Some(job.id), Some(1)).await), [2]);
}

#[tokio::test]
async fn a_reused_key_tells_of_no_second_job() {
    let (_folder, store) = open(1000);
    let key = || {
        Some(job::Idempotency {
            key: "k".to_owned(),
            fingerprint: [1; 32],
        })
    };
    for _ in 0..2 {
        let job = tests::job(State::Queued);
        let created = vec![Event::created(&job)];
        let inserted = store.insert(Arc::new(job), Secrets::default(), key(), created);
        inserted.await.unwrap();
    }
    assert_eq!(numbers(&all(&store, None, None).await), [1]);
}

#[tokio::test]
async fn a_cursor_is_never_given_twice_and_old_ones_expire() {
    let (folder, store) = open(128);
    let first = create(&store).await;
    let last = create(&store).await;
    let end = tests::ended(last.clone(), State::Succeeded);
    store.finish(end, Vec::new()).await.unwrap();
    store.delete(vec![last.id]).await.unwrap();
    assert_eq!(numbers(&all(&store, None, None).await), [1]);
    let paused = |job: &Job| vec![Event::of(job, clock::wall(), What::Paused)];
    store
        .update(Arc::new(first.clone()), paused(&first))
        .await
        .unwrap();
    assert_eq!(numbers(&all(&store, None, None).await), [1, 3]);
    for _ in 0..200 {
        let job = Arc::new(first.clone());
        store.update(job, paused(&first)).await.unwrap();
    }
    let page = all(&store, None, None).await;
    assert!((126..=128).contains(&page.events.len()));
    assert_eq!(page.next, 203);
    let oldest = page.events[0].0;
    assert!(!all(&store, None, Some(oldest - 1)).await.expired);
    assert!(all(&store, None, Some(oldest - 2)).await.expired);
    assert!(all(&store, Some(first.id), Some(0)).await.expired);
    assert!(!all(&store, None, Some(203)).await.expired);
    assert!(all(&store, None, Some(204)).await.expired);
    store.close();
    // A lower limit holds from the next event on, and a higher one brings nothing back.
    for (keep, expected) in [(100, 98..=100), (1000, 99..=101)] {
        let store = Store::open_with(&Settings {
            max_events: keep,
            ..Settings::new(&folder.path().join("store.db"))
        });
        let store = store.unwrap();
        let job = Arc::new(first.clone());
        store.update(job, paused(&first)).await.unwrap();
        let page = all(&store, None, None).await;
        assert!(expected.contains(&page.events.len()), "{keep}");
        assert!(all(&store, None, Some(oldest)).await.expired);
        store.close();
    }
}

#[tokio::test]
async fn what_was_told_last_is_found_again() {
    let (_folder, store) = open(1000);
    let (one, two) = (create(&store).await, create(&store).await);
    let silent = tests::job(State::Queued);
    let inserted = store.insert(Arc::new(silent.clone()), Secrets::default(), None, vec![]);
    inserted.await.unwrap();
    for what in [What::Started { pid: None }, What::Paused, What::Changed] {
        let event = Event::of(&one, clock::wall(), what);
        store
            .update(Arc::new(one.clone()), vec![event])
            .await
            .unwrap();
    }
    let told = store.told().await.unwrap();
    assert_eq!(told.get(&one.id), Some(&State::Paused));
    assert_eq!(told.get(&two.id), Some(&State::Queued));
    assert_eq!(told.get(&silent.id), None);
}

/// A job that runs for longer than events are kept has been started all the same.
#[tokio::test]
async fn what_says_that_a_job_was_started_is_kept_while_it_runs() {
    let (_folder, store) = open(10);
    let (one, again) = (create(&store).await, create(&store).await);
    let started = |job: &Job| Event::of(job, clock::wall(), What::Started { pid: None });
    let over = What::AttemptFinished {
        cause: job::outcome::Cause::Exited,
        exit: None,
        next_attempt_at: clock::wall(),
    };
    let events = vec![
        started(&one),
        started(&again),
        Event::of(&again, clock::wall(), over),
    ];
    store.update(Arc::new(one.clone()), events).await.unwrap();
    for _ in 0..100 {
        create(&store).await;
    }
    let shown = all(&store, Some(one.id), None).await;
    assert!(shown.events.is_empty(), "{shown:?}");
    let told = store.told().await.unwrap();
    assert_eq!(told.get(&one.id), Some(&State::Running));
    assert_eq!(told.get(&again.id), Some(&State::Queued));
}

#[tokio::test]
async fn a_page_ends_at_its_limit_and_says_so() {
    let (_folder, store) = open(1000);
    for _ in 0..5 {
        create(&store).await;
    }
    let query = |after| EventQuery {
        job: None,
        after,
        limit: 3,
    };
    let page = store.events(query(None)).await.unwrap();
    assert_eq!(
        (numbers(&page), page.next, page.more),
        (vec![1, 2, 3], 3, true)
    );
    let page = store.events(query(Some(3))).await.unwrap();
    assert_eq!(
        (numbers(&page), page.next, page.more),
        (vec![4, 5], 5, false)
    );
}

#[tokio::test]
async fn a_job_that_is_removed_ends_what_is_told_of_it() {
    let (_folder, store) = open(1000);
    let job = create(&store).await;
    let mut news = store.news(Some(job.id));
    store.delete(vec![job.id]).await.unwrap();
    assert!(news.changed().await.is_err());
    let mut news = store.news(None);
    store.end_news();
    assert!(news.changed().await.is_err());
    assert!(store.news(None).changed().await.is_err());
}

#[tokio::test]
async fn a_store_has_the_same_name_after_a_reopen_and_no_other_has_it() {
    let (folder, store) = open(1000);
    let name = store.source().to_owned();
    assert!(name.starts_with("urn:uuid:") && name.len() == 45, "{name}");
    store.close();
    let again = Store::open(&folder.path().join("store.db")).unwrap();
    assert_eq!(again.source(), name);
    assert_ne!(open(1000).1.source(), name);
}

#[test]
fn a_store_of_the_version_before_events_is_brought_up_to_date() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    Store::open(&path).unwrap().close();
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "DROP TABLE events;
         DROP TABLE webhooks;
         DROP TABLE outbox;
         DROP TABLE queues;
         DROP TABLE queue_starts;
         DROP TABLE batches;
         DROP TABLE batch_groups;
         DROP TABLE schedules;
         DROP TABLE bulk;
         DROP TABLE outputs;
         ALTER TABLE totals DROP COLUMN output;
         ALTER TABLE totals DROP COLUMN last_event;
         ALTER TABLE totals DROP COLUMN pruned_events;
         ALTER TABLE totals DROP COLUMN source;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    old.close().unwrap();
    Store::check(&path).unwrap();
    let store = Store::open(&path).unwrap();
    assert_ne!(
        store.source(),
        "urn:uuid:00000000-0000-0000-0000-000000000000"
    );
    store.close();
}

/// What may happen to a store, where totals are concerned.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create,
    CreateSilently,
    Tell,
    Finish,
    FinishSilently,
    DeleteNewest,
    DeleteOldest,
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn totals_are_what_was_counted_whatever_happens_in_which_order(
        steps in prop::collection::vec(
            prop::sample::select(vec![
                Step::Create, Step::Create, Step::CreateSilently, Step::Tell, Step::Finish, Step::Finish,
                Step::FinishSilently, Step::DeleteNewest, Step::DeleteOldest, Step::Reopen,
            ]),
            0..40,
        ),
        keep in prop::sample::select(vec![0, 3, 1000]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (folder, mut store) = open(keep);
        let settings = Settings { max_events: keep, ..Settings::new(&folder.path().join("store.db")) };
        let mut jobs: Vec<Job> = Vec::new();
        let mut told = 0;
        for step in steps {
            let unfinished = jobs.iter_mut().find(|job| !job.state.is_terminal());
            match (step, unfinished) {
                (Step::Create, _) => {
                    jobs.push(runtime.block_on(create(&store)));
                    told += 1;
                }
                (Step::CreateSilently, _) => {
                    let job = tests::job(State::Succeeded);
                    let inserting = store.insert(Arc::new(job.clone()), Secrets::default(), None, vec![]);
                    runtime.block_on(inserting).unwrap();
                    jobs.push(job);
                }
                (Step::Tell, Some(job)) => {
                    let paused = vec![Event::of(job, clock::wall(), What::Paused)];
                    runtime.block_on(store.update(Arc::new(job.clone()), paused)).unwrap();
                    told += 1;
                }
                (Step::Finish | Step::FinishSilently, Some(job)) => {
                    job.state = State::Succeeded;
                    let mut events = event::since(State::Running, job, clock::wall());
                    if matches!(step, Step::FinishSilently) {
                        events.clear();
                    }
                    told += u64::try_from(events.len()).unwrap();
                    runtime.block_on(store.finish(Arc::new(job.clone()), events)).unwrap();
                }
                (Step::DeleteNewest, _) => {
                    if let Some(job) = jobs.pop() {
                        runtime.block_on(store.delete(vec![job.id])).unwrap();
                        if !job.state.is_terminal() {
                            jobs.push(job);
                        }
                    }
                }
                (Step::DeleteOldest, _) => {
                    if !jobs.is_empty() {
                        let job = jobs.remove(0);
                        runtime.block_on(store.delete(vec![job.id])).unwrap();
                        if !job.state.is_terminal() {
                            jobs.insert(0, job);
                        }
                    }
                }
                (Step::Reopen, _) => {
                    store.close();
                    store = Store::open_with(&settings).unwrap();
                }
                (Step::Tell | Step::Finish | Step::FinishSilently, None) => {}
            }
            let finished = jobs.iter().filter(|job| job.state.is_terminal()).count();
            prop_assert_eq!(store.counts().finished, u64::try_from(finished).unwrap());
            prop_assert_eq!(*store.news(None).borrow(), told);
            let page = runtime.block_on(all(&store, None, None));
            prop_assert_eq!(page.next, told);
            let beyond = runtime.block_on(store.oldest_finished_beyond(1, 100)).unwrap();
            prop_assert_eq!(beyond.len(), finished.saturating_sub(1));
        }
        store.close();
    }
}
