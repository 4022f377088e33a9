//! A copy that takes the changes of a store is that store, row by row.

use std::sync::Mutex;

use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::Tellings;
use job::queue::{Queue, Settings as QueueSettings};
use job::webhook::Webhook;

/// Keeps changes in memory, and refuses when it is told to.
#[derive(Clone, Debug, Default)]
struct Memory {
    kept: Arc<Mutex<Vec<(u64, String)>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Keeper for Memory {
    fn claim(&self) -> &str {
        "me"
    }

    fn timeline(&self) -> u32 {
        1
    }

    fn seal(&self, _: u64, change: &str) -> Result<Vec<u8>, String> {
        Ok(change.as_bytes().to_vec())
    }

    fn append(&mut self, seq: u64, body: &[u8]) -> Result<(), String> {
        if *self.refuses.lock().unwrap() {
            return Err("it refuses".to_owned());
        }
        let text = String::from_utf8(body.to_vec()).unwrap();
        self.kept.lock().unwrap().push((seq, text));
        Ok(())
    }
}

/// The file of a store that has its place in a log, and where a copy of it is to be.
fn placed(folder: &TempDir) -> (PathBuf, PathBuf, Position) {
    let (path, copy) = (
        folder.path().join("store.db"),
        folder.path().join("copy.db"),
    );
    let mut replica = Replica::create(&path).unwrap();
    let position = Position {
        cluster: "c".to_owned(),
        seq: 1,
        claim: "me".to_owned(),
        timeline: 1,
    };
    replica.place(&position).unwrap();
    drop(replica);
    (path, copy, position)
}

/// A store with a keeper, and a copy of it as it was at its beginning.
fn kept(folder: &TempDir, max_events: u64) -> (PathBuf, Store, Memory, Replica) {
    let (path, copy, position) = placed(folder);
    assert_eq!(snapshot(&path, &copy).unwrap(), position);
    let memory = Memory::default();
    let settings = Settings {
        max_events,
        ..Settings::new(&path)
    };
    let store = Store::open_kept(&settings, Some(Box::new(memory.clone()))).unwrap();
    let replica = Replica::open(&copy).unwrap().unwrap();
    (path, store, memory, replica)
}

/// Every row of every table, but for what SQLite keeps for itself.
fn dump(path: &Path) -> Vec<String> {
    let connection = raw(path);
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut dump = Vec::new();
    for table in tables {
        let mut rows = connection
            .prepare(&format!("SELECT * FROM \"{table}\""))
            .unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..width).map(|index| row.get_ref(index).unwrap());
            let cells: Vec<String> = cells.map(|cell| format!("{cell:?}")).collect();
            dump.push(format!("{table}: {}", cells.join(" | ")));
        }
    }
    dump
}

fn apply(replica: &mut Replica, memory: &Memory) {
    let at = replica.position().unwrap().unwrap().seq;
    for (seq, text) in memory.kept.lock().unwrap().iter() {
        if *seq > at {
            let kept = Kept {
                seq: *seq,
                claim: "me".to_owned(),
                body: text.as_bytes().to_vec(),
            };
            replica.apply(&kept, text).unwrap();
        }
    }
}

struct Random(TestRunner);

impl Random {
    fn of<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }

    fn below(&mut self, most: usize) -> usize {
        self.of(0..most)
    }
}

/// A job as the API lets one in: no control characters in what has columns.
fn tame(mut job: Job) -> Job {
    let tame = |text: String| text.replace(|it: char| it.is_control(), "'");
    job.name = job.name.map(tame);
    job.created_by = tame(job.created_by);
    job.labels = std::mem::take(&mut job.labels)
        .into_iter()
        .map(|(key, value)| (tame(key), tame(value)))
        .collect();
    job.schedule = job.schedule.map(|it| Occurrence {
        name: tame(it.name),
        ..it
    });
    let spec = Arc::make_mut(&mut job.spec);
    spec.queue = tame(std::mem::take(&mut spec.queue));
    spec.webhooks = vec![Webhook {
        url: "https://example.org/it's?a=1;--".to_owned(),
        events: vec![job::event::Kind::Created, job::event::Kind::Finished],
        secret: None,
    }];
    job
}

#[tokio::test]
async fn a_copy_that_takes_every_change_is_the_same_row_by_row() {
    let folder = TempDir::new().unwrap();
    let (path, store, memory, mut replica) = kept(&folder, 150);
    let mut random = Random(TestRunner::default());
    let mut live: Vec<Job> = Vec::new();
    let mut over: Vec<JobId> = Vec::new();
    store.schedules().put(&schedule("it's")).await.unwrap();
    for round in 0..600_usize {
        let mut waiting = Vec::new();
        for _ in 0..=random.below(4) {
            match random.below(10) {
                0..=3 => {
                    let mut job = tame(random.of(rich_job()));
                    job.state = State::Queued;
                    let key = key(&format!("key {}", random.below(300)), 1);
                    let mut insertion = Insertion::default();
                    let created = Event {
                        webhooks: vec![0],
                        ..Event::created(&job)
                    };
                    insertion.add(&job, &secrets(), vec![created]).unwrap();
                    insertion.keyed("some'body", key.unwrap(), job.id);
                    let stored = store.insert_all(insertion).await.unwrap();
                    if stored == Inserted::New {
                        live.push(job);
                    }
                }
                4 | 5 if !live.is_empty() => {
                    let place = random.below(live.len());
                    live[place].message = Some(format!("';{round}\n--"));
                    let job = Arc::new(live[place].clone());
                    waiting.push(store.update(job.clone(), vec![Event::created(&job)]).await);
                }
                6 if !live.is_empty() => {
                    let place = random.below(live.len());
                    let job = live.swap_remove(place);
                    over.push(job.id);
                    let finished = Event {
                        webhooks: vec![0],
                        ..Event::created(&job)
                    };
                    let job = ended(job, State::Failed);
                    waiting.push(store.finish(job, vec![finished]).await);
                }
                7 if !over.is_empty() => {
                    let place = random.below(over.len());
                    waiting.push(store.delete(vec![over.swap_remove(place)]).await);
                }
                8 => {
                    // One that is not there: together with others, so that these are done by themselves.
                    let stranger = Arc::new(job(State::Running));
                    let known = job(State::Queued);
                    let (refused, stored) = tokio::join!(
                        store.update(stranger, Vec::new()),
                        store.insert(Arc::new(known.clone()), secrets(), None, Vec::new())
                    );
                    assert!(refused.is_err());
                    stored.unwrap();
                    live.push(known);
                }
                _ => {
                    if let Some(job) = live.first() {
                        store.tell(vec![Event::created(job)]);
                    }
                    let at = clock::wall();
                    let queue = format!("q'{}", random.below(5));
                    store
                        .queues()
                        .tell_start(queue.clone(), at, Duration::from_millis(20));
                    store
                        .queues()
                        .put(Queue {
                            name: queue,
                            settings: QueueSettings::default(),
                            version: 1,
                            created_at: at,
                            changed_at: at,
                        })
                        .await
                        .unwrap();
                    let room = Room {
                        total: 10,
                        each: 10,
                        under_way: HashMap::new(),
                    };
                    let (due, _) = store.deliveries().due(at, room).await.unwrap();
                    for (index, delivery) in due.iter().enumerate() {
                        if index % 2 == 0 {
                            store.deliveries().put_off(delivery, at).await.unwrap();
                        } else {
                            let event = delivery.event.clone();
                            store.deliveries().settle(delivery, event).await.unwrap();
                        }
                    }
                    SharedFiles(&store)
                        .keep("token", format!("it's {round}"))
                        .await
                        .unwrap();
                }
            }
        }
        for done in waiting {
            done.unwrap();
        }
        if round % 50 == 0 {
            apply(&mut replica, &memory);
        }
    }
    store.close();
    apply(&mut replica, &memory);
    let (one, other) = (dump(&path), dump(replica.path()));
    assert!(one.len() > 500, "{} rows", one.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
    assert_eq!(replica.files().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_keeper_does_not_take_is_not_there_and_is_said_to_be_unkept() {
    let folder = TempDir::new().unwrap();
    let (path, store, memory, mut replica) = kept(&folder, 100);
    let first = job(State::Queued);
    store_new(&store, &first).await;
    *memory.refuses.lock().unwrap() = true;
    let refused = store
        .insert(Arc::new(job(State::Queued)), secrets(), None, Vec::new())
        .await;
    let error = refused.unwrap_err();
    assert!(
        error.failing && error.unkept && error.why == "it refuses",
        "{error:?}"
    );
    // What is only told is tried again.
    store.tell(vec![Event::created(&first)]);
    let tellings = Tellings(&store);
    assert!(!tellings.are_owed() && tellings.are_durable().await.is_err());
    assert!(tellings.are_owed());
    *memory.refuses.lock().unwrap() = false;
    let second = job(State::Queued);
    store_new(&store, &second).await;
    store.close();
    let kept = memory.kept.lock().unwrap().clone();
    let numbers: Vec<u64> = kept.iter().map(|(seq, _)| *seq).collect();
    let wanted: Vec<u64> = (2..).take(numbers.len()).collect();
    assert_eq!(numbers, wanted);
    apply(&mut replica, &memory);
    assert_eq!(dump(&path), dump(replica.path()));
    assert_eq!(rows(&path, "live"), 2);
    assert_eq!(rows(&path, "events"), 1);
    assert_eq!(tail(&path, 2).unwrap().len(), numbers.len() - 1);
}

#[tokio::test]
async fn a_file_of_before_takes_the_steps_of_its_tables_as_changes() {
    let folder = TempDir::new().unwrap();
    let (path, copy, _) = placed(&folder);
    raw(&path)
        .execute_batch(
            "DROP TABLE bulk; DROP TABLE outputs; ALTER TABLE events DROP COLUMN output; ALTER TABLE totals DROP COLUMN output;
             PRAGMA user_version = 8",
        )
        .unwrap();
    snapshot(&path, &copy).unwrap();
    let mut memory = Memory::default();
    let mut old = Replica::open(&path).unwrap().unwrap();
    assert_eq!(old.schema().unwrap(), 8);
    old.migrate(&mut memory).unwrap();
    let mut replica = Replica::open(&copy).unwrap().unwrap();
    apply(&mut replica, &memory);
    assert_eq!(replica.schema().unwrap(), Replica::newest_schema());
    assert_eq!(dump(&path), dump(&copy));
    assert_eq!(rows(&copy, "bulk"), 0);
    // A step that this program does not know.
    let later = Kept {
        seq: 9,
        claim: "me".to_owned(),
        body: Vec::new(),
    };
    let error = replica.apply(&later, "-- schema 99").unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error}"
    );
}

/// Waits with each change until it is told to, and then refuses it.
#[derive(Debug)]
struct Slow {
    asked: std::sync::mpsc::Sender<u64>,
    gate: std::sync::mpsc::Receiver<()>,
}

impl Keeper for Slow {
    fn claim(&self) -> &str {
        "me"
    }

    fn timeline(&self) -> u32 {
        1
    }

    fn seal(&self, _: u64, change: &str) -> Result<Vec<u8>, String> {
        Ok(change.as_bytes().to_vec())
    }

    fn append(&mut self, seq: u64, _: &[u8]) -> Result<(), String> {
        self.asked.send(seq).unwrap();
        self.gate.recv().unwrap();
        Err("it refuses".to_owned())
    }
}

/// It would wait as long again, and has waited.
#[tokio::test]
async fn what_comes_while_a_change_is_tried_in_vain_is_refused_with_it() {
    let folder = TempDir::new().unwrap();
    let (path, ..) = placed(&folder);
    let (asked, was_asked) = std::sync::mpsc::channel();
    let (open, gate) = std::sync::mpsc::channel();
    let keeper = Box::new(Slow { asked, gate });
    let store = Store::open_kept(&Settings::new(&path), Some(keeper)).unwrap();
    {
        let insert = || store.insert(Arc::new(job(State::Queued)), secrets(), None, Vec::new());
        let (mut first, mut second) = (pin!(insert()), pin!(insert()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        was_asked.recv().unwrap();
        assert!(second.as_mut().poll(&mut context).is_pending());
        open.send(()).unwrap();
        for refused in [first.await, second.await] {
            assert!(refused.unwrap_err().unkept);
        }
    }
    assert!(was_asked.try_recv().is_err(), "it was tried once");
    drop(open);
    store.close();
}
