//! A steady load of checkable jobs while server, monitors and supervisor are killed at random moments;
//! then the whole history is checked.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use super::checkable::{Checkable, KINDS, Kind};
use super::{judge, leftover_files, post, runs};
use crate::harness::{
    Builder, LONG, Persistent, Server, blocking_until, eventually, kill_now, processes_with, unique,
};

/// How many jobs are under way at any time.
const WORKERS: usize = 8;

/// What has been killed, and when.
#[derive(Debug, Default)]
struct Faults {
    monitors: HashSet<String>,
    supervisors: Vec<Instant>,
    kills: [u32; 3],
}

/// A job that was accepted, and what is known of its life.
#[derive(Debug)]
struct Accepted {
    id: String,
    job: Checkable,
    posted: Instant,
    told: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whoever_is_killed() {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let seed = number("PROCESSION_FAULT_SEED", u64::from(rand::random::<u32>()));
    let kills = number("PROCESSION_FAULT_KILLS", 15);
    let least = Duration::from_secs(60 * number("PROCESSION_FAULT_MINUTES", 0));
    eprintln!("PROCESSION_FAULT_SEED={seed} PROCESSION_FAULT_KILLS={kills}");
    Suite::start(seed).await.run(kills, least).await;
}

/// The service, without cgroups where that is asked for.
fn service() -> Builder {
    let builder = Server::builder();
    match std::env::var_os("PROCESSION_FAULT_NO_CGROUPS") {
        Some(_) => builder.without_cgroups(),
        None => builder,
    }
}

struct Suite {
    server: Server,
    client: Persistent,
    rng: StdRng,
    runs: PathBuf,
    faults: Arc<Mutex<Faults>>,
    bystanders: Vec<Bystander>,
}

impl Suite {
    async fn start(seed: u64) -> Self {
        let server = service().start().await;
        let scratch = server.scratch();
        Self {
            client: server.persistent(),
            rng: StdRng::seed_from_u64(seed),
            runs: scratch.join("runs"),
            faults: Arc::default(),
            bystanders: (0..4).map(|_| Bystander::start(&scratch)).collect(),
            server,
        }
    }

    async fn run(mut self, kills: u64, least: Duration) {
        let enough = Arc::new(Mutex::new(false));
        let mut load = JoinSet::new();
        for _ in 0..WORKERS {
            let seed = self.rng.random();
            let worker = work(self.client.clone(), seed, self.runs.clone(), enough.clone());
            load.spawn(worker);
        }
        let began = Instant::now();
        let mut done = 0;
        while done < kills || began.elapsed() < least {
            self.pause().await;
            done += u64::from(self.strike());
        }
        *enough.lock().unwrap() = true;
        let mut accepted = Vec::new();
        while let Some(worker) = load.join_next().await {
            accepted.extend(worker.unwrap());
        }
        self.judge(accepted).await;
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the next fault comes at a random moment"
    )]
    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.rng.random_range(50..900));
        tokio::time::sleep(pause).await;
    }

    /// Kills somebody.
    fn strike(&mut self) -> bool {
        let choice = self.rng.random_range(0..100);
        let mut faults = self.faults.lock().unwrap();
        if choice < 15 {
            faults.supervisors.push(Instant::now());
            faults.kills[2] += 1;
            tokio::task::block_in_place(|| {
                self.server.kill_supervisor();
                self.server.restart(service());
            });
            self.client.moved(&self.server);
            return true;
        }
        if choice < 45
            && let Some(server) = self.server.server_process()
        {
            faults.kills[0] += 1;
            kill_now(server);
            return true;
        }
        let mut monitors: Vec<_> = self.server.monitors().into_iter().collect();
        monitors.sort();
        if monitors.is_empty() {
            return false;
        }
        let (job, pid) = monitors.swap_remove(self.rng.random_range(0..monitors.len()));
        faults.kills[1] += 1;
        faults.monitors.insert(job);
        kill_now(pid);
        true
    }

    async fn judge(self, accepted: Vec<Accepted>) {
        let Self {
            server,
            client,
            runs: file,
            faults,
            bystanders,
            ..
        } = self;
        let faults = std::mem::take(&mut *faults.lock().unwrap());
        let ran = runs(&file);
        let mut wrong = Vec::new();
        let mut lost = 0;
        let mut ids = HashSet::new();
        for Accepted {
            id,
            job,
            posted,
            told,
        } in &accepted
        {
            let may_be_lost =
                faults.monitors.contains(id) && faults.supervisors.iter().any(|at| at >= posted);
            let (view, verdict) = judge(&client, id, job, &ran, may_be_lost).await;
            if let Err(why) = verdict {
                wrong.push(format!(
                    "{:?} {id}: {why}\n{view:#}\n{}",
                    job.kind,
                    log_of(&server, id)
                ));
            }
            if view["state"] != told["state"] || view["exit"] != told["exit"] {
                wrong.push(format!("{id} has changed after its end: {told:#} {view:#}"));
            }
            if !ids.insert(id) {
                wrong.push(format!("{id} is the job of two keys"));
            }
            if view["state"] == "lost" {
                lost += 1;
                // Nobody is left who would stop it, which is what `lost` says.
                for process in processes_with(&job.seconds) {
                    kill_now(nix::unistd::Pid::from_raw(process.pid));
                }
            }
            let left = processes_with(&job.seconds);
            if view["state"] != "lost" && !left.is_empty() {
                wrong.push(format!("{:?} {id} has left {left:?}", job.kind));
            }
        }
        eventually("the records of ended jobs are removed", async || {
            let files = leftover_files(&server);
            if !files.is_empty() {
                eprintln!("still there: {files:?}");
            }
            files.is_empty().then_some(())
        })
        .await;
        wrong.extend(bystanders.into_iter().filter_map(Bystander::end));
        eprintln!(
            "{} jobs; killed {} servers, {} monitors, {} supervisors; {lost} jobs lost with monitor and supervisor",
            accepted.len(),
            faults.kills[0],
            faults.kills[1],
            faults.kills[2],
        );
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong.join("\n\n")
        );
    }
}

fn log_of(server: &Server, id: &str) -> String {
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(id)).collect();
    lines.join("\n")
}

/// One after the other: a job is created, perhaps stopped, and followed to its end.
async fn work(
    client: Persistent,
    seed: u64,
    runs: PathBuf,
    enough: Arc<Mutex<bool>>,
) -> Vec<Accepted> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut accepted = Vec::new();
    while !*enough.lock().unwrap() {
        let kind = KINDS[rng.random_range(0..KINDS.len())];
        let job = Checkable::new(kind, &mut rng, &runs);
        let posted = Instant::now();
        let id = post(&client, &job).await;
        if kind == Kind::Deleted {
            stop(&client, &id, &mut rng).await;
        }
        let told = client.finished(&id).await;
        accepted.push(Accepted {
            id,
            job,
            posted,
            told,
        });
    }
    accepted
}

#[expect(
    clippy::disallowed_methods,
    reason = "the stop comes at a random moment"
)]
async fn stop(client: &Persistent, id: &str, rng: &mut StdRng) {
    let pause = Duration::from_millis(rng.random_range(0..600));
    tokio::time::sleep(pause).await;
    let path = format!("/jobs/{id}?reason=test");
    let reply = client.ask(Method::DELETE, &path, None, None).await;
    assert!([200, 202].contains(&reply.status), "{reply}");
}

/// A process that has nothing to do with the service, and notes every signal that it gets.
struct Bystander {
    child: Child,
    notes: PathBuf,
}

impl Bystander {
    fn start(scratch: &std::path::Path) -> Self {
        let notes = scratch.join(unique());
        let script = "for s in HUP INT QUIT TERM USR1 USR2 CONT ALRM; do
            trap \"echo $s >> $0\" $s; done; echo ready > $0.ready
            read -r _; exit 42";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(&notes)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = notes.with_extension("ready");
        assert!(blocking_until(LONG, || ready.exists()));
        Self { child, notes }
    }

    /// What has happened to it, if anything.
    fn end(mut self) -> Option<String> {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        let noted = std::fs::read_to_string(&self.notes).unwrap_or_default();
        (status.code() != Some(42) || !noted.is_empty())
            .then(|| format!("an innocent process ended with {status} and was sent {noted:?}"))
    }
}
