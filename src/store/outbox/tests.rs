use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::{Store, tests};
use job::event::{self, Kind, What};
use job::spec::Secrets;
use job::{Spec, State};
use linux::clock;

const SECRET: &str = "whsec_hunter2-hunter2-hunter2-hunter2";

fn job() -> Job {
    let webhook = |events: &[Kind]| Webhook {
        url: "https://example.org/".to_owned(),
        events: events.to_vec(),
        secret: Some(WebhookSecret(SECRET.to_owned())),
    };
    let job = tests::job(State::Queued);
    let spec = Spec {
        webhooks: vec![
            webhook(&[Kind::Finished]),
            webhook(&[Kind::Created, Kind::Finished]),
        ],
        ..Spec::clone(&job.spec)
    };
    Job {
        spec: Arc::new(spec),
        ..job
    }
}

async fn due(store: &Store, micros: i64) -> Vec<Delivery> {
    let due = store.due_deliveries(Timestamp::from_micros(micros), 100);
    due.await.unwrap().0
}

fn contains(folder: &TempDir, text: &str) -> bool {
    std::fs::read_dir(folder.path()).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

#[tokio::test]
async fn a_delivery_is_there_until_it_is_settled_and_a_secret_until_the_last() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Store::open(&path).unwrap();
    let mut news = store.new_deliveries();
    let mut job = job();
    let created = vec![Event::created(&job)];
    let inserted = store.insert(Arc::new(job.clone()), Secrets::default(), None, created);
    inserted.await.unwrap();
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    let first = due(&store, 0).await;
    assert_eq!(
        (first.len(), first[0].webhook, first[0].attempts),
        (1, 1, 0)
    );
    assert_eq!(first[0].event.what, Event::created(&job).what);
    assert_eq!(first[0].secret.as_ref().unwrap().0, SECRET);
    store
        .put_off_delivery(&first[0], Timestamp::from_micros(500))
        .await
        .unwrap();
    assert!(due(&store, 499).await.is_empty());
    let (_, next) = store
        .due_deliveries(Timestamp::from_micros(0), 1)
        .await
        .unwrap();
    assert_eq!(next, Some(Timestamp::from_micros(500)));
    job.state = State::Succeeded;
    let finished = event::since(State::Running, &job, clock::wall());
    store.finish(Arc::new(job.clone()), finished).await.unwrap();
    store.close();

    // Of another server.
    let store = Store::open(&path).unwrap();
    let all = due(&store, 500).await;
    let found: Vec<(usize, u32)> = all.iter().map(|it| (it.webhook, it.attempts)).collect();
    assert_eq!(found, [(0, 0), (1, 0), (1, 1)]);
    for delivery in &all {
        let what = What::WebhookDelivered {
            webhook: delivery.webhook,
            event: delivery.cursor,
            attempts: 1,
            status: 200,
        };
        let event = Event::of(&job, clock::wall(), what);
        store.settle_delivery(delivery, event).await.unwrap();
    }
    assert!(due(&store, i64::MAX).await.is_empty());
    store.close();
    assert!(!contains(&folder, SECRET));
}

#[tokio::test]
async fn nothing_is_told_of_a_delivery_whose_job_is_gone() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store.db")).unwrap();
    let job = job();
    let created = vec![Event::created(&job)];
    let inserted = store.insert(Arc::new(job.clone()), Secrets::default(), None, created);
    inserted.await.unwrap();
    let delivery = due(&store, 0).await.remove(0);
    store.delete(vec![job.id]).await.unwrap();
    assert!(due(&store, 0).await.is_empty());
    let event = Event::of(&job, clock::wall(), What::Paused);
    store.settle_delivery(&delivery, event).await.unwrap();
    let later = store.put_off_delivery(&delivery, clock::wall());
    later.await.unwrap();
    let events = store.events(crate::EventQuery {
        job: None,
        after: None,
        limit: 10,
    });
    assert!(events.await.unwrap().events.is_empty());
    store.close();
    assert!(!contains(&folder, SECRET));
}
