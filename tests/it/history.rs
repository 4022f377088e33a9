//! Clients submit, read and stop while everything fails: what they were answered stays true, and what jobs wrote down and
//! what was told of them says the same. What fails is not known here.

pub(crate) mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{
    Persistent, amount, eventually_within, id, is_finished, processes_with, unique_seconds,
};

/// How often it is looked for more.
const GLANCE: Duration = Duration::from_millis(50);

/// No more of this queue run at once.
const NARROW: usize = 2;

/// How long it may take until all is over, once nothing fails any more.
pub(crate) const SETTLED: Duration = Duration::from_secs(120);

/// The choices of this run and how many faults it has; both are printed.
pub(crate) fn choices(faults: u32) -> (StdRng, u32) {
    let seed = std::env::var("PROCESSION_FAULT_SEED")
        .map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    let rounds = amount("PROCESSION_CLUSTER_FAULTS", faults);
    eprintln!("PROCESSION_FAULT_SEED={seed} PROCESSION_CLUSTER_FAULTS={rounds}");
    (StdRng::seed_from_u64(seed), rounds)
}

/// How often something was seen.
pub(crate) type Counts = BTreeMap<&'static str, u32>;

/// Three clients that submit, read and stop, and one that follows all events.
pub(crate) struct Clients {
    client: Persistent,
    lines: PathBuf,
    submitted: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    working: JoinSet<Client>,
    following: JoinSet<Vec<(u64, Value)>>,
    last: watch::Sender<Option<u64>>,
}

impl Clients {
    /// They begin; jobs write into the file `lines`.
    pub(crate) async fn begin(client: Persistent, lines: PathBuf, random: &mut StdRng) -> Self {
        // It may be asking in every outage of a row of them.
        let client = client.patient(SETTLED * 2);
        let limit = json!({"max_running": NARROW});
        let asked = client.ask(Method::PUT, "/queues/narrow", Some(&limit), None);
        assert!([200, 201].contains(&asked.await.status));
        let (submitted, is_over) = (Arc::default(), Arc::default());
        let mut working = JoinSet::new();
        for name in 0..3 {
            let client = Client {
                name,
                client: client.clone(),
                random: StdRng::seed_from_u64(random.random()),
                lines: lines.clone(),
                jobs: BTreeMap::new(),
            };
            working.spawn(client.work(Arc::clone(&submitted), Arc::clone(&is_over)));
        }
        let (last, known_last) = watch::channel(None);
        let mut following = JoinSet::new();
        following.spawn(follow(client.clone(), known_last));
        Self {
            client,
            lines,
            submitted,
            is_over,
            working,
            following,
            last,
        }
    }

    /// As long as it takes until the clients have been answered so often.
    pub(crate) async fn pause(&self, answers: u32) {
        let end = self.submitted.load(Ordering::Relaxed) + answers;
        eventually_within(SETTLED, "clients are answered", async || {
            (self.submitted.load(Ordering::Relaxed) >= end).then_some(())
        })
        .await;
    }

    /// Has one thing fail after the other, with answers in between; how often each did.
    pub(crate) async fn suffer(
        &self,
        rounds: u32,
        mut fail: impl AsyncFnMut() -> &'static str,
    ) -> Counts {
        let (begun, mut counts) = (Instant::now(), Counts::new());
        for _ in 0..rounds {
            self.pause(3).await;
            let failed = fail().await;
            eprintln!("{:4.0} s: {failed}", begun.elapsed().as_secs_f64());
            *counts.entry(failed).or_default() += 1;
        }
        counts
    }

    /// Nothing fails any more: waits for the end of everything, and holds it against what was answered.
    pub(crate) async fn judge(mut self, nodes: usize, mut counts: Counts) {
        let client = self.client;
        self.is_over.store(true, Ordering::Relaxed);
        let mut jobs = BTreeMap::new();
        for mut client in self.working.join_all().await {
            for (id, known) in client.jobs.clone() {
                if known.sleeps.is_some() {
                    client.stop(&id).await;
                }
            }
            jobs.append(&mut client.jobs);
        }
        for number in 1..=nodes {
            eventually_within(SETTLED, "all nodes are back", async || {
                let node = client.get(&format!("/nodes/n{number}")).await.json();
                (node["state"] == "connected").then_some(())
            })
            .await;
        }
        for id in jobs.keys() {
            client.finished(id).await;
        }
        let written = Written::read(&self.lines);
        for (id, known) in &jobs {
            let end = judge(&client, id, known, &written).await;
            *counts.entry(end).or_default() += 1;
        }
        for (id, _) in written.starts.keys() {
            assert!(jobs.contains_key(id), "nobody has submitted {id}");
        }
        // What was to be stopped is stopped, however long its node was away: I8.
        for seconds in jobs.values().filter_map(|known| known.sleeps.as_ref()) {
            eventually_within(SETTLED, "what was stopped is gone", async || {
                processes_with(seconds).is_empty().then_some(())
            })
            .await;
        }
        let listed = events_after(&client, 0).await;
        self.last
            .send_replace(listed.last().map(|(cursor, _)| *cursor));
        let mut followed = self.following.join_next().await.unwrap().unwrap();
        followed.truncate(listed.len());
        judge_events(&followed, &listed, &jobs);
        eprintln!("{} jobs: {counts:#?}", jobs.len());
    }
}

/// What a job's process was told of itself.
fn marks(pid: i32) -> Vec<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let is_mark = |it: &&str| it.starts_with("PROCESSION_") || it.starts_with("NODE=");
    environ
        .split('\0')
        .filter(is_mark)
        .map(str::to_owned)
        .collect()
}

/// What a client knows of a job.
#[derive(Clone, Debug)]
struct Known {
    number: u32,
    restarts: bool,
    is_narrow: bool,
    /// What its process sleeps, of one that only a stop ends.
    sleeps: Option<String>,
    /// The end that a client was shown.
    end: Option<(Value, Value, Value)>,
    version: u64,
}

/// What one client does, and holds to be true.
struct Client {
    name: usize,
    client: Persistent,
    random: StdRng,
    lines: PathBuf,
    jobs: BTreeMap<String, Known>,
}

impl Client {
    fn body(&mut self, number: u32) -> (Value, Known) {
        let lines = self.lines.display();
        let say = |what: &str| {
            format!("echo {what} $PROCESSION_JOB_ID ${{PROCESSION_ATTEMPT:-1}} $NODE >> {lines}")
        };
        let sleeps = number.is_multiple_of(6).then(unique_seconds);
        let script = match &sleeps {
            Some(seconds) => format!("{}; exec sleep {seconds}", say("start")),
            None => format!(
                "{}; echo out {number}; sleep 0.{}; echo end; {}; exit {}",
                say("start"),
                self.random.random_range(0..8),
                say("end"),
                number % 7
            ),
        };
        let mut body = json!({
            "name": format!("job-{}-{number}", self.name),
            "script": script,
            "env_inherit": ["PATH", "NODE"],
        });
        let known = Known {
            number,
            restarts: number % 5 == 1,
            is_narrow: number % 5 == 2,
            sleeps,
            end: None,
            version: 0,
        };
        if known.restarts {
            body["on_node_loss"] = json!("restart");
        }
        if known.is_narrow {
            body["queue"] = json!("narrow");
        }
        if number % 5 == 3 {
            body["placement"] = json!({"node_selector": "procession/name notin (n3)"});
        }
        (body, known)
    }

    async fn submit(&mut self, number: u32) {
        let (body, known) = self.body(number);
        let key = format!("key-{}-{number}", self.name);
        let mut answered = HashSet::new();
        for _ in 0..=u32::from(number.is_multiple_of(4)) {
            let asked = self
                .client
                .ask(Method::POST, "/jobs", Some(&body), Some(&key));
            let reply = asked.await;
            assert!([200, 201].contains(&reply.status), "{reply}");
            answered.insert(id(&reply.json()));
        }
        assert_eq!(answered.len(), 1, "one job a key: {answered:?}");
        self.jobs
            .extend(answered.into_iter().map(|id| (id, known.clone())));
    }

    /// Nothing that was answered is taken back.
    fn hold(&mut self, job: &Value) {
        let known = self.jobs.get_mut(&id(job)).unwrap();
        let version = job["version"].as_u64().unwrap();
        assert!(
            version >= known.version,
            "{} was seen before: {job:#}",
            known.version
        );
        known.version = version;
        if let Some((state, exit, finished_at)) = &known.end {
            assert_eq!(
                (state, exit, finished_at),
                (&job["state"], &job["exit"], &job["finished_at"]),
                "{job:#}"
            );
        } else if is_finished(job) {
            let part = |name: &str| job[name].clone();
            known.end = Some((part("state"), part("exit"), part("finished_at")));
        }
    }

    async fn look(&mut self, id: &str) -> Value {
        let reply = self.client.get(&format!("/jobs/{id}")).await;
        assert_eq!(reply.status, 200, "an accepted job is missing: {reply}");
        let job = reply.json();
        self.hold(&job);
        job
    }

    async fn stop(&mut self, id: &str) {
        let path = format!("/jobs/{id}?wait=2&force");
        let reply = self.client.ask(Method::DELETE, &path, None, None).await;
        self.hold(&reply.json());
        if reply.status == 200
            && let Some(seconds) = &self.jobs[id].sleeps
        {
            let left = processes_with(seconds);
            let lines = fs::read_to_string(&self.lines).unwrap_or_default();
            let begun: Vec<_> = lines.lines().filter(|it| it.contains(id)).collect();
            let marks: Vec<_> = left.iter().map(|it| marks(it.pid)).collect();
            assert_eq!(
                left,
                [],
                "200 says that nothing is left: {reply}\n{begun:?}\n{marks:?}"
            );
        }
    }

    /// Those that only a stop ends may have every place that another one can have.
    async fn leave_room(&mut self) {
        let is_long = |known: &Known| known.sleeps.is_some() && known.end.is_none();
        let long = self.jobs.iter().filter(|(_, known)| is_long(known));
        let long: Vec<String> = long.map(|(id, _)| id.clone()).collect();
        for id in long {
            self.stop(&id).await;
        }
    }

    /// Goes on until it is told that it is enough.
    async fn work(mut self, submitted: Arc<AtomicU32>, is_over: Arc<AtomicBool>) -> Self {
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            self.submit(number).await;
            submitted.fetch_add(1, Ordering::Relaxed);
            number += 1;
            let ids: Vec<String> = self.jobs.keys().cloned().collect();
            let id = &ids[self.random.random_range(0..ids.len())];
            let job = self.look(id).await;
            let is_long = self.jobs[id].sleeps.is_some();
            if is_long && !is_finished(&job) && self.random.random_bool(0.7) {
                self.stop(id).await;
            }
            // What runs leaves room for what comes.
            let Some(old) = ids.len().checked_sub(12).map(|at| ids[at].clone()) else {
                continue;
            };
            while self.jobs[&old].end.is_none() && !is_finished(&self.look(&old).await) {
                if self.jobs[&old].sleeps.is_some() {
                    self.stop(&old).await;
                }
                let reply = self.client.get(&format!("/jobs/{old}?wait=1")).await;
                if !is_finished(&reply.json()) {
                    self.leave_room().await;
                }
            }
        }
        self
    }
}

/// Follows all events over whatever fails; gives each line with its cursor.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks")]
async fn follow(client: Persistent, last: watch::Receiver<Option<u64>>) -> Vec<(u64, Value)> {
    let mut seen: Vec<(u64, Value)> = Vec::new();
    loop {
        let end = *last.borrow();
        let after = seen.last().map_or(0, |(cursor, _)| *cursor);
        if end.is_some_and(|end| after >= end) {
            return seen;
        }
        let more = events_after(&client, after).await;
        if more.is_empty() {
            tokio::time::sleep(GLANCE).await;
        }
        seen.extend(more);
    }
}

async fn events_after(client: &Persistent, after: u64) -> Vec<(u64, Value)> {
    let after = match after {
        0 => String::new(),
        after => format!("&after={after}"),
    };
    let reply = client.get(&format!("/events?follow=false{after}")).await;
    assert_eq!(reply.status, 200, "{reply}");
    let text = String::from_utf8(reply.body).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = lines.map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["id"].as_str().unwrap().parse().unwrap(), event)
    });
    events.collect()
}

/// What the jobs wrote down: starts by job and attempt with the node, and ends.
#[derive(Debug, Default)]
struct Written {
    starts: HashMap<(String, u32), Vec<String>>,
    ends: HashSet<(String, u32)>,
}

impl Written {
    fn read(path: &Path) -> Self {
        let mut written = Self::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, id, attempt, node] = words[..] else {
                panic!("{line:?}");
            };
            let key = (id.to_owned(), attempt.parse().unwrap());
            match what {
                "start" => written.starts.entry(key).or_default().push(node.to_owned()),
                _ => drop(written.ends.insert(key)),
            }
        }
        written
    }
}

/// One job at its end, held against all that is known of it: I1, I2, I4, I7, I10.
async fn judge(client: &Persistent, id: &str, known: &Known, written: &Written) -> &'static str {
    let job = client.finished(id).await;
    let attempt = u32::try_from(job["attempt"].as_u64().unwrap()).unwrap();
    let starts = |number: u32| written.starts.get(&(id.to_owned(), number));
    for number in 1..=attempt {
        let begun = starts(number).map_or([].as_slice(), Vec::as_slice);
        assert!(
            begun.len() <= 1,
            "attempt {number} of {id} started on {begun:?}: {job:#}"
        );
    }
    assert!(starts(attempt + 1).is_none(), "{job:#}");
    if !known.restarts {
        assert_eq!(attempt, 1, "{job:#}");
    }
    if let Some(nodes) = starts(attempt) {
        assert_eq!(
            job["node"], nodes[0],
            "it ran where its claim says: {job:#}"
        );
    }
    let cause = job["termination"]["cause"].as_str().unwrap().to_owned();
    match cause.as_str() {
        "exited" => {
            assert_eq!(job["exit"]["code"], known.number % 7, "{job:#}");
            assert!(written.ends.contains(&(id.to_owned(), attempt)), "{job:#}");
            let before = |it: &&Value| it["number"] != attempt;
            let from = job["attempts"].as_array().unwrap().iter().rfind(before);
            let from = from.map_or(0, |it| it["next_offset"].as_u64().unwrap());
            let output = client
                .get(&format!("/jobs/{id}/output?offset={from}"))
                .await;
            let text = String::from_utf8_lossy(&output.body).into_owned();
            assert_eq!(text, format!("out {}\nend\n", known.number), "{job:#}");
            "ended"
        }
        // Only who is stopped is canceled.
        "canceled" => {
            assert!(known.sleeps.is_some(), "{job:#}");
            "stopped"
        }
        "node_lost" => {
            assert!(
                !known.restarts || known.sleeps.is_some(),
                "it is started again: {job:#}"
            );
            let what = format!("it is told what became of {id} on {}: {job:#}", job["node"]);
            let late = eventually_within(SETTLED, what, async || {
                let job = client.get(&format!("/jobs/{id}")).await.json();
                let state = job["late"]["state"].as_str()?.to_owned();
                ["succeeded", "failed", "canceled", "lost"]
                    .contains(&state.as_str())
                    .then_some(job["late"].clone())
            })
            .await;
            if late["finished_at"].is_null() {
                // Its node does not have it, and removes none so soon: it has never got it.
                assert_eq!(late["state"], "lost", "{late:#}");
                assert_eq!(starts(attempt), None, "it has begun there: {late:#}");
                return "lost on its way to its node";
            }
            if let Some(code) = late["exit"]["code"].as_u64() {
                assert_eq!(code, u64::from(known.number % 7), "{late:#}");
            }
            "lost with its node"
        }
        // Its monitor was killed together with the server or the supervisor of its node.
        "monitor_lost" | "supervisor_lost" => "lost by its node",
        other => panic!("{other}: {job:#}"),
    }
}

/// I6, and the limit of a queue in the order of what was told: I9.
fn judge_events(
    followed: &[(u64, Value)],
    listed: &[(u64, Value)],
    jobs: &BTreeMap<String, Known>,
) {
    assert_eq!(
        followed, listed,
        "who follows misses none and has none twice"
    );
    for pair in listed.windows(2) {
        assert!(pair[0].0 < pair[1].0, "cursors grow: {pair:?}");
    }
    let mut kinds: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut narrow: HashSet<&str> = HashSet::new();
    for (_, event) in listed {
        let (subject, kind) = (
            event["subject"].as_str().unwrap(),
            event["type"].as_str().unwrap(),
        );
        if kind == "queue.changed" {
            continue;
        }
        let Some(known) = jobs.get(subject) else {
            panic!("nobody has submitted it: {event:#}");
        };
        kinds.entry(subject).or_default().push(kind);
        match kind {
            "job.started" if known.is_narrow => drop(narrow.insert(subject)),
            "job.finished" | "job.attempt_finished" => drop(narrow.remove(subject)),
            _ => {}
        }
        assert!(narrow.len() <= NARROW, "{narrow:?} at {event:#}");
    }
    for id in jobs.keys() {
        let kinds = &kinds[id.as_str()];
        let count = |kind: &str| kinds.iter().filter(|it| **it == kind).count();
        assert_eq!(
            (kinds[0], count("job.created")),
            ("job.created", 1),
            "{id}: {kinds:?}"
        );
        assert_eq!(count("job.finished"), 1, "{id}: {kinds:?}");
        assert!(
            count("job.started") <= count("job.attempt_finished") + 1,
            "{id}: {kinds:?}"
        );
        let after = kinds.iter().skip_while(|it| **it != "job.finished").skip(1);
        let mut told = after.filter(|it| !["job.reported_late", "job.changed"].contains(*it));
        assert_eq!(told.next(), None, "{id}: {kinds:?}");
    }
}
