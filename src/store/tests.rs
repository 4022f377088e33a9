#[path = "log/tests.rs"]
mod log;

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use job::batch::{Membership, On};
use job::dependency::{Awaited, Dependency};
use job::outcome::*;
use job::placement::{Late, OnNodeLoss, Placement};
use job::pty::Pty;
use job::query::{Filter, OnNode, Order};
use job::queue::{Concurrency, OnConflict};
use job::ready::{Address, OnTimeout, Ready, Sign};
use job::retry::{Codes, Retry};
use job::sandbox::{InForce, Part, Sandbox};
use job::schedule::{Definition, Missed, Occurrence, Overlap, Progress, Record, When};
use job::selector::{Requirement, Selector};
use job::spec::*;
use job::workspace::{ArtifactRules, Artifacts, Content, InnerPath, Input, Uploads, Workspace};
use job::{Attempt, Claim, Process, Signal, State, Survivor};
use linux::clock;

pub(super) fn job(state: State) -> Job {
    let spec = Spec {
        program: Program::Command {
            command: vec!["/bin/true".to_owned()],
        },
        ..Spec::default()
    };
    let actor = "token:default".to_owned();
    Job {
        state,
        ..Job::accepted(JobId::generate(), actor, Arc::new(spec), clock::wall())
    }
}

fn with_id(number: u128, state: State) -> Job {
    Job {
        id: JobId::from_bytes(number.to_be_bytes()),
        ..job(state)
    }
}

fn claim(node: &str) -> Claim {
    Claim {
        stop: None,
        node: node.parse().unwrap(),
        store: "urn:uuid:1".to_owned(),
        fence: 2,
        confirmed: true,
        seen: 0,
    }
}

pub(crate) fn ended(mut job: Job, state: State) -> Arc<Job> {
    job.state = state;
    Arc::new(job)
}

fn key(key: &str, fingerprint: u8) -> Option<Idempotency> {
    Some(Idempotency {
        key: key.to_owned(),
        fingerprint: [fingerprint; 32],
    })
}

fn secrets() -> Secrets {
    Secrets([("TOKEN".to_owned(), "hunter2-is-the-value".to_owned())].into())
}

fn fresh() -> (TempDir, PathBuf, Store) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Store::open(&path).unwrap();
    (folder, path, store)
}

async fn store_new(store: &Store, job: &Job) {
    let inserted = store
        .insert(Arc::new(job.clone()), Secrets::default(), None, Vec::new())
        .await;
    assert_eq!(inserted.unwrap(), Inserted::New);
}

fn everything() -> Query {
    Query {
        filter: Filter::default(),
        order: Order::CreatedAscending,
        after: None,
        limit: 1000,
        is_brief: false,
    }
}

fn raw(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

fn rows(path: &Path, table: &str) -> i64 {
    raw(path)
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .unwrap()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopen() {
    let (_folder, path, store) = fresh();
    let mut running = job(State::Queued);
    let done = job(State::Queued);
    let late = job(State::Queued);
    store
        .insert(Arc::new(running.clone()), secrets(), None, Vec::new())
        .await
        .unwrap();
    store_new(&store, &done).await;
    running.state = State::Running;
    running.version = 7;
    store
        .update(Arc::new(running.clone()), Vec::new())
        .await
        .unwrap();
    let done = ended(done, State::Failed);
    store.finish(Arc::clone(&done), Vec::new()).await.unwrap();
    store_new(&store, &late).await;
    store.close();

    let store = Store::open(&path).unwrap();
    assert_eq!(
        store.unfinished(keep).await.unwrap(),
        [(running.clone(), secrets()), (late, Secrets::default())]
    );
    assert_eq!(store.get(running.id).await.unwrap(), Some(running));
    assert_eq!(
        store.get(done.id).await.unwrap().as_ref(),
        Some(done.as_ref())
    );
    assert_eq!(
        finished(&store, everything()).await,
        [done.as_ref().clone()]
    );
    assert_eq!(store.counts().finished, 1);
    store.close();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let (folder, path, store) = fresh();
    let one = job(State::Queued);
    store_new(&store, &one).await;
    // What a crash leaves: the files as they are, nothing folded, nothing closed.
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let after = Store::open(&copy).unwrap();
    assert_eq!(after.get(one.id).await.unwrap(), Some(one));
}

#[tokio::test]
async fn concurrent_inserts_share_commits() {
    let (_folder, _path, store) = fresh();
    let inserts = (0..64).map(|_| {
        store.insert(
            Arc::new(job(State::Queued)),
            Secrets::default(),
            None,
            Vec::new(),
        )
    });
    for inserted in futures_util::future::join_all(inserts).await {
        assert_eq!(inserted.unwrap(), Inserted::New);
    }
    let stats = store.stats();
    assert_eq!(stats.commands, 64);
    assert!(stats.commits < 64, "{stats:?}");
    assert_eq!(store.unfinished(keep).await.unwrap().len(), 64);
}

#[tokio::test]
async fn many_jobs_are_stored_together_or_not_at_all() {
    let (_folder, _path, store) = fresh();
    let of = |jobs: &[Job], number| {
        let mut insertion = Insertion::default();
        for job in jobs {
            let events = vec![Event::created(job)];
            insertion.add(job, &secrets(), events).unwrap();
        }
        insertion.keyed("me", key("k", number).unwrap(), JobId::generate());
        insertion
    };
    let jobs: Vec<Job> = (0..1000).map(|_| job(State::Queued)).collect();
    let twice = [job(State::Queued), job(State::Queued), jobs[0].clone()];
    let first = store.insert_all(of(&jobs, 1)).await;
    assert_eq!(first.unwrap(), Inserted::New);
    assert_eq!(store.stats().commits, 1);
    // The last of them is there already: neither the others nor the key are stored.
    let mut doubled = of(&twice, 1);
    doubled.keyed("you", key("k", 1).unwrap(), twice[0].id);
    store.insert_all(doubled).await.unwrap_err();
    assert_eq!(store.get(twice[0].id).await.unwrap(), None);
    let free = store.submitted("you", &key("k", 1).unwrap()).await;
    assert_eq!(free.unwrap(), None);
    let repeat = store.insert_all(of(&twice[..2], 1)).await;
    assert!(matches!(repeat.unwrap(), Inserted::Replay(_)));
    let other = store.insert_all(of(&twice[..2], 2)).await;
    assert_eq!(other.unwrap(), Inserted::KeyReused);
    assert_eq!(store.unfinished(keep).await.unwrap().len(), 1000);
    let page = EventQuery {
        job: None,
        after: None,
        limit: 2000,
    };
    assert_eq!(store.events(page).await.unwrap().events.len(), 1000);
}

#[tokio::test]
async fn of_concurrent_inserts_with_one_key_one_is_new() {
    let (_folder, _path, store) = fresh();
    let inserts = (0..64).map(|_| {
        store.insert(
            Arc::new(job(State::Queued)),
            secrets(),
            key("k", 1),
            Vec::new(),
        )
    });
    let outcomes: Vec<Inserted> = futures_util::future::join_all(inserts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let stored = store.unfinished(keep).await.unwrap();
    assert_eq!(stored.len(), 1);
    let replay = Inserted::Replay(stored[0].0.id);
    assert_eq!(
        outcomes.iter().filter(|it| **it == Inserted::New).count(),
        1
    );
    assert_eq!(outcomes.iter().filter(|it| **it == replay).count(), 63);
}

#[tokio::test]
async fn a_key_belongs_to_one_body_of_one_actor_for_the_life_of_the_job() {
    let (_folder, path, store) = fresh();
    let first = job(State::Queued);
    let insert = |job: &Job, fingerprint| {
        store.insert(
            Arc::new(job.clone()),
            Secrets::default(),
            key("k", fingerprint),
            Vec::new(),
        )
    };
    assert_eq!(insert(&first, 1).await.unwrap(), Inserted::New);
    assert_eq!(
        insert(&job(State::Queued), 2).await.unwrap(),
        Inserted::KeyReused
    );
    let other = Job {
        created_by: "uid:7".to_owned(),
        rerun_of: None,
        run_at: None,
        hold: false,
        schedule: None,
        ..job(State::Queued)
    };
    assert_eq!(insert(&other, 2).await.unwrap(), Inserted::New);
    store
        .finish(ended(first.clone(), State::Succeeded), Vec::new())
        .await
        .unwrap();
    assert_eq!(
        insert(&job(State::Queued), 1).await.unwrap(),
        Inserted::Replay(first.id)
    );
    store
        .finish(ended(other.clone(), State::Failed), Vec::new())
        .await
        .unwrap();
    store.delete(vec![first.id, other.id]).await.unwrap();
    assert_eq!(rows(&path, "idempotency"), 0);
    assert_eq!(insert(&job(State::Queued), 2).await.unwrap(), Inserted::New);
}

#[tokio::test]
async fn short_output_is_stored_with_the_end_and_goes_with_the_job() {
    let (_folder, path, store) = fresh();
    let (one, other) = (job(State::Queued), job(State::Queued));
    store_new(&store, &one).await;
    store_new(&store, &other).await;
    let output: Arc<[u8]> = b"\0all of it\xff".as_slice().into();
    let end = || ended(one.clone(), State::Succeeded);
    let outputs = store.outputs();
    let finish = |output| outputs.finish(end(), Vec::new(), output);
    let early = Arc::new(one.clone());
    let refused = outputs.finish(early, Vec::new(), Some(output.clone()));
    assert!(refused.await.is_err());
    assert_eq!(store.outputs().get(one.id).await.unwrap(), None);
    finish(Some(output.clone())).await.unwrap();
    // Stored again, as after a failure that was none, and changed later.
    finish(Some(output.clone())).await.unwrap();
    store.finish(end(), Vec::new()).await.unwrap();
    store
        .finish(ended(other.clone(), State::Failed), Vec::new())
        .await
        .unwrap();
    store.close();
    let store = Store::open(&path).unwrap();
    let found = store.outputs().get(one.id).await.unwrap();
    assert_eq!(found.as_deref(), Some(&*output));
    assert_eq!(store.outputs().get(other.id).await.unwrap(), None);
    store.delete(vec![one.id]).await.unwrap();
    assert_eq!(store.outputs().get(one.id).await.unwrap(), None);
    assert_eq!(rows(&path, "outputs"), 0);
}

#[tokio::test]
async fn a_failing_command_does_not_fail_its_neighbours() {
    let (_folder, _path, store) = fresh();
    let twice = job(State::Queued);
    store_new(&store, &twice).await;
    let other = job(State::Queued);
    let (again, missing, good) = tokio::join!(
        store.insert(Arc::new(twice.clone()), secrets(), key("k", 1), Vec::new()),
        store.finish(ended(job(State::Queued), State::Lost), Vec::new()),
        store.insert(
            Arc::new(other.clone()),
            Secrets::default(),
            None,
            Vec::new()
        ),
    );
    assert!(again.is_err());
    assert_eq!(
        missing.unwrap_err().to_string(),
        "cannot store the end of a job: no such unfinished job"
    );
    assert_eq!(good.unwrap(), Inserted::New);
    // The failed insert left neither its key nor its secrets.
    let retry = store.insert(
        Arc::new(job(State::Queued)),
        secrets(),
        key("k", 2),
        Vec::new(),
    );
    assert_eq!(retry.await.unwrap(), Inserted::New);
    assert_eq!(store.counts().finished, 0);
}

#[tokio::test]
async fn a_dropped_future_still_commits() {
    let (_folder, path, store) = fresh();
    let one = job(State::Queued);
    {
        let insert =
            pin!(store.insert(Arc::new(one.clone()), Secrets::default(), None, Vec::new()));
        let _ = insert.poll(&mut Context::from_waker(Waker::noop()));
    }
    store.close();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(one.id).await.unwrap(), Some(one));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_folder, _path, store) = fresh();
    store.clone().close();
    let error = store.get(JobId::generate()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read a job: the store is closed");
    assert!(store.delete(Vec::new()).await.is_err());
}

#[tokio::test]
async fn the_end_of_a_job_erases_its_secrets_from_every_file() {
    let (folder, _path, store) = fresh();
    let mut one = job(State::Queued);
    one.spec = Arc::new(Spec {
        secret_env: secrets(),
        ..Spec::clone(&one.spec)
    });
    store
        .insert(Arc::new(one.clone()), secrets(), None, Vec::new())
        .await
        .unwrap();
    assert_eq!(store.unfinished(keep).await.unwrap()[0].1, secrets());
    let shown = store.get(one.id).await.unwrap().unwrap();
    assert_eq!(shown.spec.secret_env.0["TOKEN"], "");
    store
        .finish(ended(one.clone(), State::Canceled), Vec::new())
        .await
        .unwrap();
    store.close();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }
}

#[tokio::test]
async fn an_end_is_stored_again_without_doubling_and_never_undone() {
    let (_folder, path, store) = fresh();
    let mut one = job(State::Queued);
    one.labels.insert("a".to_owned(), "b".to_owned());
    store_new(&store, &one).await;
    store
        .finish(ended(one.clone(), State::Lost), Vec::new())
        .await
        .unwrap();
    let last = ended(one.clone(), State::Failed);
    store.finish(Arc::clone(&last), Vec::new()).await.unwrap();
    assert_eq!(
        finished(&store, everything()).await,
        [last.as_ref().clone()]
    );
    // Its label, and who created it.
    assert_eq!((store.counts().finished, rows(&path, "labels")), (1, 2));
    assert!(store.update(Arc::new(one), Vec::new()).await.is_err());
    assert!(store.update(last, Vec::new()).await.is_err());
}

#[tokio::test]
async fn what_is_too_old_or_too_much_is_found_oldest_first_and_removed() {
    let (_folder, path, store) = fresh();
    let moment = Timestamp::from_micros;
    let jobs: Vec<Job> = [30, 10, 20, 99]
        .into_iter()
        .map(|micros| Job {
            expires_at: Some(moment(micros)),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..job(State::Queued)
        })
        .collect();
    for one in &jobs {
        store_new(&store, one).await;
        assert_eq!(store.expired(moment(1000), 9).await.unwrap().len(), 0);
    }
    let ids: Vec<JobId> = jobs.iter().map(|one| one.id).collect();
    for one in jobs {
        store
            .finish(ended(one, State::Succeeded), Vec::new())
            .await
            .unwrap();
    }
    assert_eq!(
        store.expired(moment(30), 9).await.unwrap(),
        [ids[1], ids[2], ids[0]]
    );
    assert_eq!(store.expired(moment(30), 1).await.unwrap(), [ids[1]]);
    let beyond = |keep| store.oldest_finished_beyond(keep, 2);
    assert_eq!(beyond(3).await.unwrap(), [ids[0]]);
    assert_eq!(beyond(0).await.unwrap(), [ids[0], ids[1]]);
    assert_eq!(beyond(u64::MAX).await.unwrap(), []);
    store.delete(vec![ids[0], JobId::generate()]).await.unwrap();
    assert_eq!(store.counts().finished, 3);
    assert_eq!(store.get(ids[0]).await.unwrap(), None);
    store.delete(ids).await.unwrap();
    for table in ["live", "finished", "labels", "idempotency", "secrets"] {
        assert_eq!(rows(&path, table), 0, "{table}");
    }
}

#[tokio::test]
async fn a_job_that_has_not_ended_outlasts_a_removal_with_all_that_belongs_to_it() {
    let (_folder, path, store) = fresh();
    let (lives, over) = (job(State::Queued), job(State::Queued));
    let insert =
        |job: &Job, secrets, key| store.insert(Arc::new(job.clone()), secrets, key, Vec::new());
    insert(&lives, secrets(), key("k", 1)).await.unwrap();
    store_new(&store, &over).await;
    store
        .finish(ended(over.clone(), State::Succeeded), Vec::new())
        .await
        .unwrap();
    store.delete(vec![lives.id, over.id]).await.unwrap();
    assert_eq!(store.get(over.id).await.unwrap(), None);
    let (there, its_secrets) = store.unfinished_job(lives.id).await.unwrap().unwrap();
    assert_eq!((there, its_secrets), (lives.clone(), secrets()));
    assert_eq!(rows(&path, "idempotency"), 1);
    assert_eq!(store.counts().finished, 0);
}

#[test]
fn a_page_comes_from_indexes_in_order() {
    let (_folder, path, store) = fresh();
    let connection = raw(&path);
    for (order, label) in [
        (Order::CreatedAscending, None),
        (Order::CreatedDescending, Some(("a", vec!["b", "c"]))),
    ] {
        let requirements = label.map(|(key, values)| {
            Requirement::In(key.into(), values.into_iter().map(String::from).collect())
        });
        let query = Query {
            filter: Filter {
                selector: Selector {
                    requirements: requirements.into_iter().collect(),
                },
                ..Filter::default()
            },
            order,
            after: Some(JobId::generate()),
            limit: 100,
            is_brief: false,
        };
        let sql = query::page(&connection, &query).unwrap().unwrap();
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {}", sql.text))
            .unwrap()
            .query_map(rusqlite::params_from_iter(&sql.values), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let plan = plan.join("\n");
        assert!(
            !plan.contains("TEMP B-TREE") && !plan.contains("SCAN f"),
            "{plan}"
        );
    }
    store.close();
}

fn schedule(name: &str) -> Record {
    let at = Timestamp::from_micros(5);
    Record {
        name: name.to_owned(),
        created_by: "token:default".to_owned(),
        created_at: at,
        changed_at: at,
        version: 1,
        definition: Definition {
            when: When::EverySeconds(5),
            time_zone: "UTC".to_owned(),
            job: r#"{"command":["x"]}"#.to_owned(),
            overlap: Overlap::Queue,
            missed: Missed::All,
            missed_within_seconds: 3,
            jitter_seconds: 0,
            paused: false,
            starts_at: None,
            ends_at: Some(at),
            labels: BTreeMap::new(),
        },
        seen: at,
        turn: 0,
        progress: Progress::default(),
    }
}

#[tokio::test]
async fn a_step_of_a_schedule_is_made_once_and_with_its_job() {
    let (_folder, path, store) = fresh();
    let first = schedule("a");
    store.schedules().put(&first).await.unwrap();
    store.schedules().put(&schedule("b")).await.unwrap();
    let next = first.stepped(Timestamp::from_micros(9), |it| it.runs += 1);
    let insert = async |next: &Record| {
        let mut insertion = Insertion::default();
        let job = job(State::Queued);
        insertion
            .add(&job, &Secrets::default(), Vec::new())
            .unwrap();
        insertion.step(next).unwrap();
        store.insert_all(insertion).await
    };
    insert(&next).await.unwrap();
    let error = insert(&next).await.unwrap_err();
    assert_eq!(error.why, "the schedule has gone on meanwhile");
    assert_eq!(rows(&path, "live"), 1, "a second job has not been stored");
    assert_eq!(
        store.schedules().all().await.unwrap(),
        [next.clone(), schedule("b")]
    );
    // Nor after it has been changed or made again.
    let other = Record {
        turn: next.turn + 1,
        ..next.clone()
    };
    store.schedules().put(&other).await.unwrap();
    let late = next.stepped(Timestamp::from_micros(11), |_| {});
    assert!(store.schedules().step(&late, Vec::new()).await.is_err());
    let next_step = other.stepped(Timestamp::from_micros(11), |_| {});
    store
        .schedules()
        .step(&next_step, Vec::new())
        .await
        .unwrap();
    let now = Timestamp::from_micros(12);
    store.schedules().delete("a".to_owned(), now).await.unwrap();
    assert!(store.schedules().step(&late, Vec::new()).await.is_err());
    store
        .schedules()
        .put(&Record {
            created_at: Timestamp::from_micros(77),
            ..first
        })
        .await
        .unwrap();
    assert!(insert(&next).await.is_err());
    assert_eq!(rows(&path, "live"), 1);
    store.close();
}

/// The slowest of some pages, and the jobs of the last.
fn slowest(store: &Store, filter: &Filter) -> (std::time::Duration, Vec<Job>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut slowest = std::time::Duration::ZERO;
    let mut last = Vec::new();
    for _ in 0..20 {
        let query = Query {
            filter: filter.clone(),
            order: Order::CreatedDescending,
            after: None,
            limit: 50,
            is_brief: false,
        };
        let began = std::time::Instant::now();
        last = runtime.block_on(store.list(query, 0)).unwrap().1;
        slowest = slowest.max(began.elapsed());
    }
    (slowest, last)
}

/// With as many jobs as it is told, it measures: `LIST_JOBS=300000 cargo nextest run many_jobs --no-capture`.
#[test]
#[expect(clippy::print_stdout, reason = "it measures")]
fn many_jobs_are_listed_by_queue_name_and_time() {
    let count: u32 = std::env::var("LIST_JOBS").map_or(3000, |it| it.parse().unwrap());
    let (_folder, path, store) = fresh();
    let base = Job {
        labels: BTreeMap::new(),
        ..job(State::Succeeded)
    };
    // One job a second up to now; every thousandth is rare, and the oldest have a name of their own.
    let now = JobId::generate().made_at().as_micros();
    let at = |number: u32| {
        Timestamp::from_micros(now - (i64::from(count) - i64::from(number)) * 1_000_000)
    };
    let mut connection = raw(&path);
    let fill = connection.transaction().unwrap();
    let mut totals = tables::Totals::read(&fill).unwrap();
    for number in 0..count {
        let is_rare = number % 1000 == 7;
        let name = if is_rare {
            format!("rare-{number}")
        } else if number < 100 {
            format!("first-{number}")
        } else {
            format!("job-{number}")
        };
        let queue = if is_rare { "rare" } else { "default" };
        let mut bytes = *JobId::generate().as_bytes();
        bytes[..6].copy_from_slice(&(at(number).as_micros() / 1000).to_be_bytes()[2..]);
        let job = Job {
            id: JobId::from_bytes(bytes),
            name: Some(name),
            created_at: at(number),
            spec: Arc::new(Spec {
                queue: queue.to_owned(),
                ..Spec::clone(&base.spec)
            }),
            ..base.clone()
        };
        let mut insertion = Insertion::default();
        insertion
            .add(&job, &Secrets::default(), Vec::new())
            .unwrap();
        crate::insertion::insert(&fill, &insertion, &mut totals).unwrap();
    }
    totals.write(&fill).unwrap();
    fill.commit().unwrap();
    let rare = usize::try_from(count.div_ceil(1000).min(50)).unwrap();
    let named = |prefix: &str| Filter {
        name_prefix: Some(prefix.to_owned()),
        ..Filter::default()
    };
    let between = |from: u32, to: u32| Filter {
        created_after: Some(at(from)),
        created_before: Some(at(to)),
        ..Filter::default()
    };
    let in_queue = Filter {
        queue: Some("rare".to_owned()),
        ..Filter::default()
    };
    let both = Filter {
        queue: Some("rare".to_owned()),
        ..named("rare-")
    };
    for (what, filter, found) in [
        ("a rare queue", in_queue, rare),
        ("a rare name", named("rare-"), rare),
        ("a rare name in a rare queue", both, rare),
        ("one job by its name", named("first-42"), 1),
        ("old names", named("first-"), 50),
        ("a name that most have", named("job-"), 50),
        ("a name that none has", named("none-"), 0),
        ("an old time", between(10, 20), 10),
        ("before an old time", between(0, 40), 40),
        ("a time to come", between(count + 100, count + 200), 0),
    ] {
        let (slowest, jobs) = slowest(&store, &filter);
        println!("{what}: {} jobs, slowest of 20: {slowest:?}", jobs.len());
        assert_eq!(jobs.len(), found, "{what}");
        assert!(jobs.iter().all(|job| filter.matches(job)), "{what}");
        assert!(jobs.is_sorted_by(|one, next| one.id > next.id), "{what}");
    }
    store.close();
}

#[test]
fn the_file_is_for_its_owner_alone_and_no_link_is_followed() {
    let (folder, path, store) = fresh();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(Store::open(&link), Err(OpenError::Io(_))));
    assert!(matches!(Store::open(folder.path()), Err(OpenError::Io(_))));
}

#[test]
fn another_programs_database_is_refused_and_untouched() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    raw(&path).execute_batch("CREATE TABLE t (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::Foreign)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn ended_jobs_of_nodes_are_found_in_a_store_of_before() {
    let (_folder, path, store) = fresh();
    let there = Job {
        claim: Some(Box::new(claim("n7"))),
        ..job(State::Running)
    };
    for job in [&there, &job(State::Running)] {
        store_new(&store, job).await;
        let end = ended(job.clone(), State::Failed);
        store.finish(end, Vec::new()).await.unwrap();
    }
    store.close();
    raw(&path)
        .execute_batch(
            "DELETE FROM labels WHERE key IN ('#node', '#by'); ALTER TABLE events DROP COLUMN output;
             ALTER TABLE totals DROP COLUMN output; DROP TABLE outputs; PRAGMA user_version = 9;",
        )
        .unwrap();
    let store = Store::open(&path).unwrap();
    let query = Query {
        filter: Filter {
            node: Some(OnNode::Named("n7".to_owned())),
            ..Filter::default()
        },
        order: Order::CreatedAscending,
        after: None,
        limit: 10,
        is_brief: false,
    };
    let found = finished(&store, query).await;
    assert_eq!(found.iter().map(|it| it.id).collect::<Vec<_>>(), [there.id]);
    store.delete(vec![there.id]).await.unwrap();
    // Of the other one who created it.
    assert_eq!(rows(&path, "labels"), 1);
}

/// A job of this actor that has ended, with so many bytes of output of which the first ones are gone.
async fn with_output(store: &Store, actor: &str, first: u64, next: u64) -> Job {
    let job = Job {
        created_by: actor.to_owned(),
        output: OutputTotals {
            stdout_bytes: next,
            first_offset: first,
            next_offset: next,
            dropped_bytes: first,
            ..OutputTotals::default()
        },
        ..job(State::Running)
    };
    store_new(store, &job).await;
    finish_telling(store, job.clone()).await;
    job
}

async fn finish_telling(store: &Store, job: Job) {
    let end = ended(job, State::Failed);
    let events = job::event::since(State::Running, &end, clock::wall());
    assert!(!events.is_empty());
    store.finish(end, events).await.unwrap();
}

#[tokio::test]
async fn the_creators_and_the_output_of_a_store_of_before_are_known() {
    let (_folder, path, store) = fresh();
    let mine = with_output(&store, "token:ci", 100, 1100).await;
    let nobodys = with_output(&store, "anonymous", 0, 20).await;
    let there = Job {
        claim: Some(Box::new(claim("n7"))),
        ..mine.clone()
    };
    let elsewhere = Job {
        id: JobId::generate(),
        ..there
    };
    store_new(&store, &elsewhere).await;
    let end = ended(elsewhere.clone(), State::Succeeded);
    store.finish(end, Vec::new()).await.unwrap();
    assert_eq!(store.counts().output_bytes, 1020);
    store.close();
    raw(&path)
        .execute_batch(
            "DELETE FROM labels WHERE key = '#by'; ALTER TABLE events DROP COLUMN output;
             ALTER TABLE totals DROP COLUMN output; DROP TABLE outputs; PRAGMA user_version = 10;",
        )
        .unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.counts().output_bytes, 1020);
    let by = async |actor: &str| {
        let query = Query {
            filter: Filter {
                created_by: Some(actor.to_owned()),
                ..Filter::default()
            },
            ..everything()
        };
        let found = finished(&store, query).await;
        found.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let both = if by("token:ci").await[0] == mine.id {
        [mine.id, elsewhere.id]
    } else {
        [elsewhere.id, mine.id]
    };
    assert_eq!(by("token:ci").await, both);
    assert_eq!(by("anonymous").await, [nobodys.id]);
    assert_eq!(by("token").await, []);
    store.delete(vec![mine.id, elsewhere.id]).await.unwrap();
    assert_eq!(store.counts().output_bytes, 20);
    assert_eq!(rows(&path, "labels"), 0);
    store.close();
}

#[tokio::test]
async fn the_output_that_is_kept_is_counted_over_a_change_of_an_end_and_a_restart() {
    let (_folder, path, store) = fresh();
    let one = with_output(&store, "uid:1", 0, 500).await;
    let mut later = one.clone();
    later.output.first_offset = 200;
    finish_telling(&store, later).await;
    assert_eq!(store.counts().output_bytes, 300);
    let another = with_output(&store, "uid:1", 0, 7).await;
    store.close();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.counts().output_bytes, 307);
    store.delete(vec![one.id]).await.unwrap();
    assert_eq!(store.counts().output_bytes, 7);
    store.delete(vec![another.id]).await.unwrap();
    store.close();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.counts().output_bytes, 0);
    store.close();
}

#[test]
fn a_newer_store_is_refused_and_untouched() {
    let (_folder, path, store) = fresh();
    store.close();
    raw(&path).pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "store has schema 99, this procession knows up to 12: start the newer version"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_untouched() {
    let (_folder, path, store) = fresh();
    let inserts = (0..400).map(|_| {
        store.insert(
            Arc::new(job(State::Queued)),
            Secrets::default(),
            None,
            Vec::new(),
        )
    });
    futures_util::future::join_all(inserts).await;
    store.close();
    let sound = std::fs::read(&path).unwrap();
    let damages: [fn(&std::fs::File, u64); 4] = [
        |file, _| file.write_all_at(b"garbage!", 0).unwrap(),
        |file, _| file.write_all_at(&[0xff; 200], 100).unwrap(),
        |file, size| file.set_len(size / 2).unwrap(),
        |file, size| file.write_all_at(&[0xa5; 16_384], size - 16_384).unwrap(),
    ];
    for damage in damages {
        std::fs::write(&path, &sound).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        damage(&file, u64::try_from(sound.len()).unwrap());
        let before = std::fs::read(&path).unwrap();
        let outcome = Store::open(&path);
        assert!(
            matches!(outcome, Err(OpenError::Damaged { .. })),
            "{outcome:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn an_emptied_file_with_a_log_is_damaged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::write(path.with_extension("db-wal"), b"frames").unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::Damaged { .. })));
    assert_eq!(
        std::fs::read(path.with_extension("db-wal")).unwrap(),
        b"frames"
    );
}

/// A job of which each part that may be large is.
fn large(state: State) -> Job {
    let text = || "é".repeat(60_000);
    let input = Input {
        path: InnerPath::new("in").unwrap(),
        content: Content::Text(text()),
        mode: None,
        unpack: None,
    };
    let spec = Spec {
        program: Program::Command {
            command: vec!["echo".to_owned(), text()],
        },
        env: [("TEXT".to_owned(), text())].into(),
        stdin: Stdin::Data(StdinData::Text(text())),
        inputs: vec![input],
        queue: "q".to_owned(),
        ..Spec::default()
    };
    Job {
        spec: Arc::new(spec),
        ..job(state)
    }
}

#[tokio::test]
async fn the_large_parts_of_a_job_are_kept_beside_its_row_and_left_out_of_a_brief_list() {
    let (_folder, path, store) = fresh();
    let mut waiting = large(State::Queued);
    let done = large(State::Queued);
    store_new(&store, &waiting).await;
    store_new(&store, &done).await;
    waiting.version = 7;
    let update = store.update(Arc::new(waiting.clone()), Vec::new());
    update.await.unwrap();
    let done = ended(done, State::Failed);
    store.finish(Arc::clone(&done), Vec::new()).await.unwrap();
    store.finish(Arc::clone(&done), Vec::new()).await.unwrap();
    store.close();

    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(waiting.id).await.unwrap(), Some(waiting.clone()));
    assert_eq!(store.get(done.id).await.unwrap().as_ref(), Some(&*done));
    let of_queue = Query {
        filter: Filter {
            queue: Some("q".to_owned()),
            ..Filter::default()
        },
        ..everything()
    };
    let (live, finished) = store.list(of_queue.clone(), 0).await.unwrap();
    assert_eq!(
        (&live[..], &finished[..]),
        (&[waiting.clone()][..], &[(*done).clone()][..])
    );
    let brief = Query {
        is_brief: true,
        ..of_queue
    };
    let (live, finished) = store.list(brief, 0).await.unwrap();
    for (brief, job) in [(&live[0], &waiting), (&finished[0], &*done)] {
        assert!(
            brief.spec.text_bytes() <= 1024,
            "{}",
            brief.spec.text_bytes()
        );
        assert_eq!(
            (brief.id, brief.state, brief.version),
            (job.id, job.state, job.version)
        );
        let Program::Command { command } = &brief.spec.program else {
            panic!("not a command");
        };
        assert!(command[0] == "echo" && command[1].starts_with("éé"));
    }
    let in_rows: i64 = raw(&path)
        .query_row(
            "SELECT (SELECT sum(length(job)) FROM live) + (SELECT sum(length(job)) FROM finished)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(in_rows < 10_000, "{in_rows}");
    let unfinished = store.unfinished_job(waiting.id).await.unwrap();
    assert_eq!(unfinished.unwrap().0, waiting);
    store
        .finish(ended(waiting.clone(), State::Canceled), Vec::new())
        .await
        .unwrap();
    store.delete(vec![waiting.id, done.id]).await.unwrap();
    assert_eq!(rows(&path, "bulk"), 0);
    store.close();
}

#[tokio::test]
async fn a_large_row_of_an_earlier_version_is_read_shown_briefly_and_written_anew() {
    let (_folder, path, store) = fresh();
    let mut old = large(State::Queued);
    let small = job(State::Queued);
    store_new(
        &store,
        &Job {
            id: old.id,
            ..small
        },
    )
    .await;
    store.close();
    let mut text: serde_json::Value = {
        let small = Job {
            spec: Arc::new(Spec::default()),
            ..old.clone()
        };
        serde_json::from_str(&encoding::encode(&small).unwrap().text).unwrap()
    };
    text["spec"] = serde_json::to_value(&*old.spec).unwrap();
    let set = "UPDATE live SET job = ?1, created_at = ?2 WHERE id = ?3";
    let row = rusqlite::params![
        text.to_string(),
        old.created_at.as_micros(),
        old.id.as_bytes()
    ];
    assert_eq!(raw(&path).execute(set, row).unwrap(), 1);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(old.id).await.unwrap(), Some(old.clone()));
    let brief = Query {
        is_brief: true,
        ..everything()
    };
    let (live, _) = store.list(brief, 0).await.unwrap();
    assert!(live[0].spec.text_bytes() <= 1024);
    old.version += 1;
    let update = store.update(Arc::new(old.clone()), Vec::new());
    update.await.unwrap();
    assert_eq!(rows(&path, "bulk"), 1);
    assert_eq!(store.get(old.id).await.unwrap(), Some(old));
    store.close();
}

#[test]
fn a_simple_job_is_a_short_text() {
    let text = encoding::encode(&job(State::Queued)).unwrap().text;
    assert!(text.len() < 140, "{} {text}", text.len());
}

#[test]
fn a_row_of_the_first_version_is_read_with_the_defaults_of_that_time() {
    let columns = encoding::Columns {
        id: JobId::generate(),
        state: 6,
        name: None,
        created_at: 0,
        expires_at: None,
    };
    let text = concat!(
        r#"{"attempt":1,"created_by":"uid:0","output":{},"spec":{"command":["x"]},"version":3,"#,
        r#""termination":{"cause":"timeout"}}"#,
    );
    let job = encoding::decode(columns, text).unwrap().job;
    assert_eq!(job.spec.ttl_after_finished, Duration::from_secs(604_800));
    assert_eq!(job.spec.stop.grace, Duration::from_secs(10));
    assert_eq!(job.spec.output.max_bytes, 64 << 20);
    assert!(job.output.complete);
    assert_eq!(job.state, State::Failed);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,3}",
        any::<String>(),
        Just("null".to_owned()),
        Just("default".to_owned())
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    (0_u64..4_000_000_000).prop_map(Duration::from_millis)
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000_000_000).prop_map(Timestamp::from_micros)
}

fn names() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..3)
}

fn who() -> impl Strategy<Value = NameOrId> {
    prop_oneof![
        any::<u32>().prop_map(NameOrId::Id),
        text().prop_map(NameOrId::Name)
    ]
}

fn signal() -> impl Strategy<Value = Signal> {
    (1..=31).prop_map(|number| Signal::from_number(number).unwrap())
}

prop_compose! {
    fn spec()(
        program in prop_oneof![
            prop::collection::vec(text(), 0..3).prop_map(|command| Program::Command { command }),
            (text(), prop::collection::vec(text(), 0..3))
                .prop_map(|(script, shell)| Program::Script { script, shell }),
        ],
        (cwd, env, secret_names, user, groups) in (
            prop::option::of(text()), names(), prop::collection::btree_set(text(), 0..3),
            prop::option::of(who()), prop::option::of(prop::collection::vec(who(), 0..3)),
        ),
        env_inherit in prop_oneof![
            Just(EnvInherit::Default), Just(EnvInherit::None),
            prop::collection::vec(text(), 0..3).prop_map(EnvInherit::Names),
        ],
        (umask, nice, affinity, no_new_privs, priority) in (
            0_u32..0o1000, prop::option::of(-20..20), prop::option::of(prop::collection::vec(0_usize..9, 0..3)),
            any::<bool>(), any::<i32>(),
        ),
        soft in prop::option::of(any::<u64>()),
        (memory_bytes, cpu) in (prop::option::of(any::<u64>()), prop::option::of(0_u16..10_000)),
        stdin in prop_oneof![
            Just(Stdin::Null), text().prop_map(|it| Stdin::Data(StdinData::Text(it))),
            Just(Stdin::Data(StdinData::Base64("eA==".to_owned()))),
        ],
        pty in prop::option::of((1_u16..99, 1_u16..99, text()).prop_map(|(rows, cols, term)| Pty { rows, cols, term })),
        output in (any::<bool>(), any::<u64>()),
        (timeout, start_deadline, ttl, grace) in
            (prop::option::of(duration()), prop::option::of(duration()), duration(), duration()),
        (stop_signal, codes, queue) in (signal(), prop::collection::vec(any::<u8>(), 0..3), text()),
        (key, retry) in (
            prop::option::of(text().prop_map(|key| Concurrency { key, limit: 2, policy: OnConflict::Replace })),
            prop::option::of((1_u32..9, any::<u8>()).prop_map(|(max_attempts, last)| Retry {
                max_attempts, exit_codes: Some(vec![Codes { first: last / 2, last }]), ..Retry::default()
            })),
        ),
    ) -> Spec {
        Spec {
            placement: no_new_privs.then(|| Placement { node_selector: "a in (b,c)".parse().unwrap(), nodes: vec!["n7".parse().unwrap()] }),
            on_node_loss: if no_new_privs { OnNodeLoss::Restart } else { OnNodeLoss::Lost },
            workspace: no_new_privs.then(Workspace::default),
            inputs: cwd.iter().filter_map(|path| Some(Input {
                path: InnerPath::new(path.as_str()).ok()?, content: Content::Text(path.clone()), mode: None, unpack: None,
            })).collect(),
            artifacts: cwd.clone().map(|path| ArtifactRules { paths: vec![path], ..ArtifactRules::default() }),
            program, cwd: cwd.clone(), env,
            secret_env: Secrets(secret_names.into_iter().map(|name| (name, String::new())).collect()),
            env_inherit, user, group: None, supplementary_groups: groups,
            umask: Umask::from_bits(umask).unwrap(), nice,
            io_priority: nice.map(|_| IoPriority { class: IoClass::Idle, level: 3 }),
            oom_score_adj: nice, cpu_affinity: affinity,
            rlimits: soft.map(|soft| (RlimitResource::Core, Rlimit {
                soft: RlimitValue::Value(soft), hard: RlimitValue::Unlimited,
            })).into_iter().collect(),
            limits: Limits { memory_bytes, cpu: cpu.map(|it| f64::from(it) / 100.0), pids: None },
            no_new_privs,
            sandbox: (!no_new_privs).then(|| Sandbox {
                require: output.0, writable_paths: cwd.clone().map(|path| vec![path]), ..Sandbox::default()
            }),
            stdin, pty,
            output: OutputPolicy { merge_stderr: output.0, max_bytes: output.1, on_limit: OnLimit::StopJob },
            timeout,
            timeout_warning: timeout.map(|before| TimeoutWarning { before, signal: Some(stop_signal), scope: Scope::Leader }),
            stop: StopPolicy { signal: stop_signal, grace, scope: Scope::All },
            wait_for: if output.0 { WaitFor::All } else { WaitFor::Leader },
            success_exit_codes: codes, queue, priority,
            weight: priority.unsigned_abs(), concurrency: key,
            start_deadline, ttl_after_finished: ttl,
            webhooks: Vec::new(), retry,
            ready: timeout.map(|timeout| Ready { sign: Sign::Port { port: 80, address: Address::Routable }, timeout, on_timeout: OnTimeout::Stop }),
        }
    }
}

prop_compose! {
    fn rich_job()(
        spec in prop_oneof![spec(), Just(Spec::default())],
        name in prop::option::of(text()),
        labels in names(),
        (created_by, message, path) in (text(), prop::option::of(text()), prop::option::of(text())),
        state in prop::sample::select(State::ALL.to_vec()),
        (at, maybe_at) in (moment(), prop::option::of(moment())),
        (version, flag, maybe, number) in
            (any::<u64>(), any::<bool>(), prop::option::of(any::<bool>()), any::<i32>()),
        signal in signal(),
        micros in 0_u32..u32::MAX,
    ) -> Job {
        Job {
            late: maybe.map(|_| Box::new(Late { node: "n7".parse().unwrap(), state, exit: None, finished_at: maybe_at })),
            claim: maybe.map(|confirmed| Box::new(Claim { confirmed, seen: version, ..claim("n7") })),
            uploads: maybe.map(|_| Box::new(Uploads { node: "n7".parse().unwrap(), place: created_by.clone() })),
            artifacts: maybe.map(|truncated| Artifacts { files: version, truncated, missing: path.clone().into_iter().collect(), ..Artifacts::default() }),
            id: JobId::generate(), name, labels, created_by, rerun_of: maybe.map(|_| JobId::generate()), trace: None, run_at: maybe_at, hold: flag, schedule: maybe_at.map(|_| Occurrence { name: path.clone().unwrap_or_default(), due_at: maybe_at }), spec: Arc::new(spec),
            depends_on: if flag { vec![Dependency { awaited: Awaited::Job { job: JobId::generate() }, on: On::Failed }] } else { Vec::new() },
            batch: maybe.map(|_| Membership { id: JobId::generate(), key: "k".to_owned(), group: 1, index: 2, count: 3, max_running: flag.then_some(4) }),
            version, state,
            message: message.clone(), created_at: at, started_at: maybe_at, finished_at: maybe_at,
            expires_at: maybe_at, deadline_at: maybe_at, warned_at: maybe_at, ready_at: maybe_at, not_ready_at: maybe_at, ready_message: message.clone(),
            process: flag.then(|| Process {
                unwatched: None,
                pid: number, started_at: at, start_ticks: version, monitor_pid: number, used_before: (version, 1),
                executable: path.clone(), cgroup: path,
                sandbox: maybe.map(|seccomp| InForce {
                    landlock_abi: None, seccomp, missing: vec![Part::Landlock],
                }),
            }),
            attempt: 1,
            attempts: if flag {
                vec![Attempt {
                    number: 1, started_at: maybe_at, finished_at: at, cause: Cause::Timeout, exit: None,
                    spawn_failure: None, usage: None, first_offset: 0, next_offset: version, escalated: flag,
                    killed_leftovers: 1, message: message.clone(), lost_with: maybe.map(|_| Box::new(("n7".parse().unwrap(), 3))),
                    refused_by: maybe.map(|_| Box::new("n8".parse().unwrap())),
                }]
            } else {
                Vec::new()
            },
            next_attempt_at: maybe_at,
            exit: flag.then_some(Exit {
                status: if maybe.is_some() {
                    ExitStatus::Signal { signal, core_dumped: flag }
                } else {
                    ExitStatus::Code(3)
                },
                at, oom_killed: maybe,
            }),
            termination: maybe.map(|escalated| Termination {
                cause: Cause::Canceled, requested_by: message.clone(), reason: message.clone(),
                signals_sent: if flag { vec![SentSignal { signal, at }] } else { Vec::new() },
                escalated, killed_leftovers: 0,
            }),
            spawn_failure: flag.then(|| SpawnFailure {
                stage: Stage::Exec, errno: number, message: message.unwrap_or_default(),
            }),
            usage: maybe_at.map(|_| Usage {
                user_cpu_seconds: f64::from(micros) / 1e6, system_cpu_seconds: 0.0, max_rss_bytes: version,
                max_memory_bytes: maybe.map(|_| version),
            }),
            output: OutputTotals { stdout_bytes: version, complete: flag, ..OutputTotals::default() },
            survivors: if flag {
                vec![Survivor { pid: number, state: 'D', uid: 0, name: "x".to_owned() }]
            } else {
                Vec::new()
            },
        }
    }
}

proptest! {
    #[test]
    fn a_job_comes_back_as_it_was(job in rich_job()) {
        let encoded = encoding::encode(&job).unwrap();
        let decoded = encoding::decode(encoded.columns, &encoded.text).unwrap();
        prop_assert_eq!(decoded.job, job, "{}", encoded.text);
    }
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "a.b/c", "é", ""]).prop_map(str::to_owned)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = || prop::collection::vec(word(), 0..3);
    prop_oneof![
        (word(), values()).prop_map(|(key, values)| Requirement::In(key, values)),
        (word(), values()).prop_map(|(key, values)| Requirement::NotIn(key, values)),
        word().prop_map(Requirement::Exists),
        word().prop_map(Requirement::NotExists),
    ]
}

prop_compose! {
    fn query()(
        states in prop::collection::vec(prop::sample::select(State::ALL.to_vec()), 0..3),
        requirements in prop::collection::vec(requirement(), 0..3),
        name in prop::option::weighted(0.2, word()),
        name_prefix in prop::option::weighted(0.2, word()),
        queue in prop::option::weighted(0.2, word()),
        batch in prop::option::weighted(0.2, 0_u128..3),
        schedule in prop::option::weighted(0.2, word()),
        node in prop::option::weighted(0.2, prop::option::weighted(0.7, prop::sample::select(vec!["n1", "n2", "n3"]))),
        creator in prop::option::weighted(0.2, 0_u128..3),
        created_after in prop::option::weighted(0.2, 0_i64..10),
        created_before in prop::option::weighted(0.2, 0_i64..10),
        descending in any::<bool>(),
        after in prop::option::of(0_u128..40),
        limit in 0_usize..50,
    ) -> Query {
        Query {
            filter: Filter {
                states, selector: Selector { requirements }, name, name_prefix, queue, schedule,
                created_by: creator.map(creator_of),
                node: node.map(|named| named.map_or(OnNode::Hub, |name| OnNode::Named(name.to_owned()))),
                batch: batch.map(|it| JobId::from_bytes(it.to_be_bytes())),
                created_after: created_after.map(Timestamp::from_micros),
                created_before: created_before.map(Timestamp::from_micros),
            },
            order: if descending { Order::CreatedDescending } else { Order::CreatedAscending },
            after: after.map(|it| JobId::from_bytes(it.to_be_bytes())),
            limit,
            is_brief: false,
        }
    }
}

type Traits = (usize, BTreeMap<String, String>, Option<String>, String, i64);

fn traits() -> impl Strategy<Value = Traits> {
    (
        0..State::ALL.len(),
        prop::collection::btree_map(word(), word(), 0..4),
        prop::option::of(word()),
        word(),
        0_i64..10,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_list_shows_exactly_what_the_filter_lets_pass(
        many in prop::collection::vec(traits(), 0..40),
        queries in prop::collection::vec(query(), 40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_folder, _path, store) = fresh();
        let jobs: Vec<Job> = (0_u128..).zip(many).map(|(number, (state, labels, name, queue, created))| {
            let base = with_id(number, State::ALL[state]);
            Job {
                schedule: name.clone().map(|name| Occurrence { name, due_at: None }),
                labels, name, created_at: Timestamp::from_micros(created),
                batch: (number % 4 < 3).then(|| Membership {
                    id: JobId::from_bytes((number % 4).to_be_bytes()),
                    key: String::new(), group: 0, index: 0, count: 1, max_running: None,
                }),
                claim: (number % 3 > 0).then(|| Box::new(claim(&format!("n{}", number % 3)))),
                created_by: creator_of(number % 3),
                spec: Arc::new(Spec { queue, ..Spec::clone(&base.spec) }),
                ..base
            }
        }).collect();
        runtime.block_on(async {
            let inserts = jobs.iter().map(|job| {
                store.insert(Arc::new(job.clone()), Secrets::default(), None, Vec::new())
            });
            for inserted in futures_util::future::join_all(inserts).await {
                prop_assert_eq!(inserted.unwrap(), Inserted::New);
            }
            for query in queries {
                let page = |is_in: fn(State) -> bool| {
                    let mut page: Vec<Job> = jobs.iter()
                        .filter(|job| is_in(job.state) && query.filter.matches(job))
                        .filter(|job| query.is_after(job.id))
                        .cloned()
                        .collect();
                    if query.order == Order::CreatedDescending {
                        page.reverse();
                    }
                    page.truncate(query.limit);
                    page
                };
                let (live, ended) = store.list(query.clone(), 0).await.unwrap();
                prop_assert_eq!(live, page(|state| !state.is_terminal()), "{:?}", query);
                prop_assert_eq!(ended, page(State::is_terminal), "{:?}", query);
            }
            Ok(())
        })?;
        store.close();
    }
}

fn creator_of(number: u128) -> String {
    match number {
        0 => "anonymous".to_owned(),
        other => format!("token:t{other}"),
    }
}

async fn finished(store: &Store, query: Query) -> Vec<Job> {
    store.list(query, 0).await.unwrap().1
}

fn keep(job: Job, secrets: Secrets) -> (Job, Secrets) {
    (job, secrets)
}
