//! Followers that come and go while the server is killed, beside a job that writes faster than any of them reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::reading::{EVENTS, Lines, NDJSON, bytes_of, count, open};
use crate::harness::{LONG, Server, eventually, eventually_within, id, kill_now};

const RAW: &str = "text/plain";

/// How much each follower has at least.
const ENOUGH: u64 = 1 << 20;

/// Bytes of a line of the job.
const LINE: usize = 16;

/// What `seq -f %015.0f 0 …` writes: at every offset it is known what has to stand there.
struct Sequence([u8; LINE]);

impl Sequence {
    fn line(number: u64) -> Self {
        let text = format!("{number:015}\n");
        Self(text.as_bytes().try_into().unwrap())
    }

    fn advance(&mut self) {
        for digit in self.0[..LINE - 1].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }

    /// Are these the bytes at `from`?
    fn is_at(from: u64, bytes: &[u8]) -> bool {
        let line = count(LINE);
        let mut expected = Self::line(from / line);
        let mut skip = usize::try_from(from % line).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let wanted = &expected.0[skip..];
            let length = wanted.len().min(rest.len());
            if rest[..length] != wanted[..length] {
                return false;
            }
            rest = &rest[length..];
            skip = 0;
            expected.advance();
        }
        true
    }
}

#[test]
fn the_sequence_is_that_of_the_job() {
    assert!(Sequence::is_at(0, b"000000000000000\n000000000000001\n0"));
    assert!(Sequence::is_at(16 * 1999 + 10, b"01999\n000000000002000\n"));
    assert!(!Sequence::is_at(16, b"000000000000002\n"));
    assert!(!Sequence::is_at(1, b"000000000000000\n000"));
}

/// A job that writes the sequence.
struct Job {
    id: String,
    is_dropping: bool,
}

impl Job {
    /// It writes as fast as it can, and most of that is dropped before anybody has read it.
    async fn fast(server: &Server) -> Self {
        let spec = json!({
            "command": ["seq", "-f", "%015.0f", "0", "999999999999999"],
            "output": {"max_bytes": 4 << 20, "on_limit": "drop_oldest"},
        });
        Self {
            id: id(&server.submit(&spec).await),
            is_dropping: true,
        }
    }

    /// It writes what a follower can read, and all of that is kept.
    async fn calm(server: &Server) -> Self {
        let spec = json!({
            "script": "seq -f %015.0f 0 999999999999999 | while head -c 65536; do sleep 0.05; done",
            "output": {"max_bytes": 1 << 30},
        });
        Self {
            id: id(&server.submit(&spec).await),
            is_dropping: false,
        }
    }
}

/// What a follower has had.
#[derive(Debug, Default)]
struct Had {
    job: String,
    /// Bytes of output, each seen to be the right one.
    bytes: u64,
    /// Bytes that were told to be gone.
    gaps: u64,
    /// How often it came back.
    comebacks: u32,
    /// Where its output ended.
    end: u64,
}

/// One client, with what its output must join to.
struct Follower<'a> {
    server: &'a Server,
    job: &'a str,
    rng: StdRng,
    /// Can output have been dropped?
    is_dropping: bool,
    at: u64,
    had: Had,
    /// How often it has come back and what it has had, for whoever waits for that.
    comebacks: Arc<AtomicU32>,
    bytes: Arc<AtomicU64>,
}

impl<'a> Follower<'a> {
    fn new(server: &'a Server, job: &'a Job, seed: u64) -> Self {
        Self {
            server,
            job: &job.id,
            rng: StdRng::seed_from_u64(seed),
            is_dropping: job.is_dropping,
            at: 0,
            had: Had {
                job: job.id.clone(),
                ..Had::default()
            },
            comebacks: Arc::default(),
            bytes: Arc::default(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let at = self.at;
        assert!(Sequence::is_at(at, bytes), "wrong bytes at {at}");
        self.at += count(bytes.len());
        let length = count(bytes.len());
        self.had.bytes = self.bytes.fetch_add(length, Ordering::Relaxed) + length;
    }

    fn is_gone(&mut self, to: u64) {
        let is_possible = to == self.at || (to > self.at && self.is_dropping);
        assert!(is_possible, "a gap from {} to {to}", self.at);
        self.had.gaps += to - self.at;
        self.at = to;
    }

    /// Comes back, as often as not where it was, else some way before.
    fn come_back(&mut self) {
        self.had.comebacks = self.comebacks.fetch_add(1, Ordering::Relaxed) + 1;
        if self.rng.random() {
            self.at = self.at.saturating_sub(self.rng.random_range(0..100_000));
        }
    }

    /// Reads records until the end of all.
    async fn records(mut self, kind: &str) -> Had {
        loop {
            let place = self.at.to_string();
            let opened = if kind == EVENTS {
                let headers = [("accept", kind), ("last-event-id", place.as_str())];
                open(self.server, self.job, "", &headers).await
            } else {
                let query = format!("offset={place}");
                open(self.server, self.job, &query, &[("accept", kind)]).await
            };
            let Ok(response) = opened else { continue };
            let mut lines = Lines::new(response);
            let mut left = self.rng.random_range(1..30);
            while left > 0 {
                left -= 1;
                let Some((record, event)) = lines.record().await else {
                    assert!(!lines.is_whole, "a follow ended without an end");
                    break;
                };
                if self.record(&record, event, left == 0) {
                    return self.had;
                }
            }
            self.come_back();
        }
    }

    /// True at the end. The last record before a client goes away may be cut.
    fn record(&mut self, record: &Value, event: Option<String>, is_cut: bool) -> bool {
        let number = |name: &str| record[name].as_u64().unwrap();
        match record["type"].as_str().unwrap() {
            "output" => {
                assert_eq!(number("offset"), self.at);
                let mut bytes = bytes_of(record);
                let next = self.at + count(bytes.len());
                if let Some(event) = event {
                    assert_eq!(event, next.to_string());
                }
                if is_cut {
                    bytes.truncate(self.rng.random_range(0..=bytes.len()));
                }
                self.take(&bytes);
            }
            "gap" => {
                assert_eq!(number("from"), self.at);
                self.is_gone(number("to"));
            }
            "state" => {}
            "end" => {
                assert_eq!(number("next_offset"), self.at);
                assert_eq!(record["state"], "canceled");
                self.had.end = self.at;
                return true;
            }
            other => panic!("{other}"),
        }
        false
    }

    /// The same with raw bytes, which say in the head what is gone.
    async fn raw(mut self) -> Had {
        loop {
            let query = format!("offset={}", self.at);
            let opened = open(self.server, self.job, &query, &[("accept", RAW)]).await;
            let Ok(mut response) = opened else { continue };
            assert_eq!(response.status(), 200);
            let first = &response.headers()["procession-first-offset"];
            self.is_gone(first.to_str().unwrap().parse().unwrap());
            let mut left = self.rng.random_range(1..30);
            while left > 0 {
                left -= 1;
                let chunk = tokio::time::timeout(LONG, response.chunk()).await;
                match chunk.expect("something comes within the limit") {
                    Ok(Some(bytes)) => self.take(&bytes),
                    Ok(None) => {
                        self.had.end = self.at;
                        return self.had;
                    }
                    Err(_) => break,
                }
            }
            self.come_back();
        }
    }
}

/// Kills the server so many times within the time, each time when it is known that the job has written on.
async fn kill_the_server(server: &Server, job: &Job, times: u32, time: Duration) {
    let client = server.persistent();
    let path = format!("/jobs/{}", job.id);
    let began = Instant::now();
    let mut last = 0;
    for round in 1..=times + 1 {
        let due = time * round / (times + 1);
        eventually_within(due + LONG, "the job writes on", async || {
            let view = client.get(&path).await.json();
            let next = view["output"]["next_offset"].as_u64().unwrap();
            assert_eq!(view["state"], "running", "{view:#}");
            if began.elapsed() < due || next < last + (1 << 19) {
                return None;
            }
            last = next;
            Some(())
        })
        .await;
        if round <= times {
            let killed = eventually("there is a server", async || server.server_process()).await;
            kill_now(killed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_come_and_go_miss_nothing_while_the_server_is_killed() {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let seed = number("PROCESSION_FOLLOW_SEED", u64::from(rand::random::<u32>()));
    let seconds = number("PROCESSION_FOLLOW_SECONDS", 8);
    // The supervisor waits longer from kill to kill, up to 5 s.
    let kills = number("PROCESSION_FOLLOW_KILLS", 7);
    eprintln!(
        "PROCESSION_FOLLOW_SEED={seed} PROCESSION_FOLLOW_SECONDS={seconds} PROCESSION_FOLLOW_KILLS={kills}"
    );
    let server = Server::start().await;
    let (fast, calm) = (Job::fast(&server).await, Job::calm(&server).await);
    let mut seeds = StdRng::seed_from_u64(seed);
    let mut several = |job, count: usize| -> Vec<_> {
        (0..count)
            .map(|_| Follower::new(&server, job, seeds.random()))
            .collect()
    };
    let mut of_both = || {
        let mut both = several(&fast, 5);
        both.extend(several(&calm, 1));
        both
    };
    let (lines, events, raw) = (of_both(), of_both(), of_both());
    let all = || lines.iter().chain(&events).chain(&raw);
    let comebacks: Vec<_> = all().map(|it| it.comebacks.clone()).collect();
    let bytes: Vec<_> = all().map(|it| it.bytes.clone()).collect();
    let faults = async {
        let kills = u32::try_from(kills).unwrap();
        kill_the_server(&server, &fast, kills, Duration::from_secs(seconds)).await;
        // Else this would be a test of nothing.
        for times in 1..=3 {
            let counts = || comebacks.iter().map(|it| it.load(Ordering::Relaxed));
            eprintln!("comebacks: {:?}", counts().collect::<Vec<_>>());
            eventually("each has come back once more", async || {
                counts().all(|it| it >= times).then_some(())
            })
            .await;
        }
        eventually("each has had enough", async || {
            let mut had = bytes.iter().map(|it| it.load(Ordering::Relaxed));
            had.all(|it| it > ENOUGH).then_some(())
        })
        .await;
        server.stop(&fast.id, "force").await;
        server.stop(&calm.id, "force").await;
    };
    let (lines, events, raw, ()) = tokio::join!(
        join_all(lines.into_iter().map(|follower| follower.records(NDJSON))),
        join_all(events.into_iter().map(|follower| follower.records(EVENTS))),
        join_all(raw.into_iter().map(Follower::raw)),
        faults,
    );
    for had in lines.iter().chain(&events).chain(&raw) {
        eprintln!("{had:?}");
        let ended = server.finished(&had.job).await;
        assert_eq!(had.end, ended["output"]["next_offset"], "{had:?} {ended:#}");
        assert!(had.comebacks >= 3 && had.bytes > ENOUGH, "{had:?}");
    }
}
