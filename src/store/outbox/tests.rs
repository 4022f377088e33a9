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
    let due = store
        .deliveries()
        .due(Timestamp::from_micros(micros), room(100, 100));
    due.await.unwrap().0
}

/// Nothing is under way, and so much may be.
fn room(total: usize, each: usize) -> Room {
    Room {
        total,
        each,
        under_way: HashMap::new(),
    }
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
    let mut news = store.deliveries().news();
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
        .deliveries()
        .put_off(&first[0], Timestamp::from_micros(500))
        .await
        .unwrap();
    assert!(due(&store, 499).await.is_empty());
    let (_, next) = store
        .deliveries()
        .due(Timestamp::from_micros(0), room(1, 1))
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
        store.deliveries().settle(delivery, event).await.unwrap();
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
    let end = tests::ended(job.clone(), State::Succeeded);
    store.finish(end, Vec::new()).await.unwrap();
    store.delete(vec![job.id]).await.unwrap();
    assert!(due(&store, 0).await.is_empty());
    let event = Event::of(&job, clock::wall(), What::Paused);
    store.deliveries().settle(&delivery, event).await.unwrap();
    let later = store.deliveries().put_off(&delivery, clock::wall());
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

#[tokio::test]
async fn a_receiver_with_much_to_take_leaves_room_for_the_others() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store.db")).unwrap();
    for (host, jobs) in [("dead", 10), ("healthy", 2)] {
        for number in 0..jobs {
            let mut job = job();
            let url = format!("https://{host}.example/{number}");
            Arc::make_mut(&mut job.spec).webhooks[1].url = url;
            let created = vec![Event::created(&job)];
            let inserted = store.insert(Arc::new(job), Secrets::default(), None, created);
            inserted.await.unwrap();
        }
    }
    let ask = async |room: Room| {
        let due = store
            .deliveries()
            .due(Timestamp::from_micros(0), room)
            .await;
        let due = due.unwrap().0;
        let hosts = due.iter().map(|it| webhook::receiver(&it.url).len());
        let dead = hosts.filter(|length| *length == "https://dead.example".len());
        (dead.count(), due.len(), due)
    };
    let (dead, all, begun) = ask(room(20, 3)).await;
    assert_eq!((dead, all), (3, 5));
    assert_eq!(ask(room(2, 3)).await.1, 2);
    // While those are under way, nothing more goes to the first.
    let under_way = begun.iter().take(3);
    let under_way = under_way.map(|it| (it.id, webhook::receiver(&it.url).to_owned()));
    let busy = Room {
        under_way: under_way.collect(),
        ..room(20, 3)
    };
    let (dead, all, _) = ask(busy).await;
    assert_eq!((dead, all), (0, 2));
}

#[tokio::test]
async fn what_a_clock_has_put_off_that_was_set_back_since_is_due() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store.db")).unwrap();
    let job = job();
    let created = vec![Event::created(&job)];
    let inserted = store.insert(Arc::new(job), Secrets::default(), None, created);
    inserted.await.unwrap();
    let delivery = due(&store, 0).await.remove(0);
    let now = Timestamp::from_micros(1 << 50);
    let pause = webhook::LONGEST_PAUSE;
    store
        .deliveries()
        .put_off(&delivery, now.after(pause))
        .await
        .unwrap();
    assert!(due(&store, now.as_micros()).await.is_empty());
    let hour = i64::try_from(pause.as_micros()).unwrap();
    assert_eq!(due(&store, now.as_micros() - hour).await.len(), 1);
}
