//! The second half of F6, and F10: how many follow, and how soon they hear.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::baseline;
use crate::events::Follower;
use crate::processes;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float, float64, median, percentile, spread};
use crate::{Plan, note};

/// Whoever has the end so soon after the last line was written has kept up.
const KEPT_UP: f64 = 1000.0;

/// Lines that a job writes.
pub(crate) struct Lines {
    pub(crate) length: u64,
    /// So many of them at once.
    pub(crate) count: u64,
    /// The time between two times, in microseconds.
    pub(crate) step: u64,
    pub(crate) seconds: u64,
}

impl Lines {
    fn bytes(&self) -> u64 {
        self.seconds * 1_000_000 / self.step * self.count * self.length
    }
}

/// Everybody follows one job; returns them when each has had all of it, and the cores that the server used.
pub(crate) fn follow(
    service: &Service,
    lines: &Lines,
    followers: usize,
) -> io::Result<(Vec<Follower>, f64)> {
    let program = baseline::compile("lines")?;
    let Lines {
        length,
        count,
        step,
        seconds,
    } = lines;
    let spec = serde_json::json!({
        "command": [program, length.to_string(), count.to_string(), step.to_string(), seconds.to_string(), "wait"],
        "stdin": {"mode": "open"},
        "output": {"max_bytes": lines.bytes() * 2 + (1 << 20)},
    });
    let answer = service
        .connect()?
        .exchange(&service.submission("", &spec.to_string()))?;
    let job: serde_json::Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
    let id = job["id"]
        .as_str()
        .ok_or_else(|| io::Error::other(answer.body.clone()))?;
    let request = service.request("GET", &format!("/jobs/{id}/output?follow"));
    let request = [
        &request[..request.len() - 2],
        b"Accept: text/event-stream\r\n\r\n",
    ]
    .concat();
    let mut all = Vec::with_capacity(followers);
    for _ in 0..followers {
        let stream = TcpStream::connect(service.address)?;
        all.push(Follower::start(stream, &request, lines.length)?);
    }
    let mut buffer = vec![0; 1 << 18];
    receive_until(&mut all, &mut buffer, Follower::is_following)?;
    let server = service.server_pid()?;
    let (begin, used) = (Instant::now(), processes::cpu(server));
    let begun = service.connect()?.exchange(&service.with_body(
        "POST",
        &format!("/jobs/{id}/stdin?eof"),
        "go\n",
    ))?;
    if begun.status != 204 {
        return Err(io::Error::other(begun.body));
    }
    receive_until(&mut all, &mut buffer, |follower| {
        follower.ended_at.is_some()
    })?;
    let used = float64(processes::cpu(server).saturating_sub(used)) / 1e9;
    let cores = used / begin.elapsed().as_secs_f64();
    for follower in &all {
        if follower.at != lines.bytes() {
            let text = format!("a follower got {} of {} bytes", follower.at, lines.bytes());
            return Err(io::Error::other(text));
        }
    }
    Ok((all, cores))
}

fn receive_until(
    all: &mut [Follower],
    buffer: &mut [u8],
    is_done: impl Fn(&Follower) -> bool,
) -> io::Result<()> {
    let limit = Instant::now() + Duration::from_secs(300);
    loop {
        let mut waiting: Vec<&mut Follower> = all
            .iter_mut()
            .filter(|follower| !is_done(follower))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(io::Error::other("the followers do not come to an end"));
        }
        let mut polled: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|follower| {
                let follower: &Follower = follower;
                PollFd::new(std::os::fd::AsFd::as_fd(follower), PollFlags::POLLIN)
            })
            .collect();
        poll(&mut polled, PollTimeout::from(1000_u16))?;
        let ready: Vec<bool> = polled
            .iter()
            .map(|fd| fd.any().unwrap_or_default())
            .collect();
        for (follower, is_ready) in waiting.iter_mut().zip(ready) {
            if is_ready {
                follower.receive(buffer)?;
            }
        }
    }
}

/// The second half of F6.
pub(crate) fn crowd(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    const FOLLOWERS: usize = 200;
    let rounds = plan.rounds.min(3);
    let lines = Lines {
        length: 100,
        count: 1000,
        step: 10_000,
        seconds: plan.load.as_secs(),
    };
    let (mut cores, mut lags, mut delays, mut rates) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        note(&format!("F6, {FOLLOWERS} followers, round {}", round + 1));
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &[])?;
        let (all, used) = follow(&service, &lines, FOLLOWERS)?;
        cores.push(used);
        let ends = all.iter().filter_map(|one| one.ended_at);
        let stamps = all.iter().filter_map(|one| one.stamps);
        let first = stamps.clone().map(|(first, _)| first).min().unwrap_or(0);
        let last = stamps.map(|(_, last)| last).max().unwrap_or(0);
        lags.push(float64(ends.max().unwrap_or(0).saturating_sub(last)) / 1e6);
        rates.push(float64(lines.bytes()) / 1e6 / (float64(last - first) / 1e9));
        let all: Vec<f64> = all.into_iter().flat_map(|one| one.delays).collect();
        delays.push(percentile(&all, 0.99));
    }
    let kept_up = lags.iter().all(|lag| *lag < KEPT_UP);
    rows.push(Row::new(
        "F6",
        format!(
            "{FOLLOWERS} SSE followers of one job at 10 MB/s, {} s, {rounds} rounds",
            plan.load.as_secs()
        ),
        format!(
            "each got all of it at {} MB/s, the last its `end` {} ms after the last line; line → event p99 {} ms; \
             server {} cores",
            spread(&rates, 1),
            spread(&lags, 0),
            spread(&delays, 1),
            spread(&cores, 2)
        ),
        "each keeps up, server < 1 core",
        Some(kept_up && median(&rates) > 9.5 && median(&cores) < 1.0),
    ));
    Ok(())
}

/// F10.
pub(crate) fn latency(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let lines = Lines {
        length: 64,
        count: 1,
        step: 5000,
        seconds: plan.load.as_secs() / 2,
    };
    let scratch = Scratch::new()?;
    let service = Service::start(&scratch.state(), &[])?;
    let (mut p50, mut p99, mut seen) = (vec![], vec![], 0);
    for round in 0..plan.rounds {
        note(&format!("F10 round {}", round + 1));
        let (all, _) = follow(&service, &lines, 1)?;
        let delays: Vec<f64> = all.into_iter().flat_map(|one| one.delays).collect();
        p50.push(median(&delays));
        p99.push(percentile(&delays, 0.99));
        seen += delays.len();
    }
    rows.push(Row::new(
        "F10",
        "a printed line → its SSE event, a line every 5 ms, p50",
        format!(
            "{} ms (p99 {}; {:.0} events)",
            spread(&p50, 2),
            spread(&p99, 2),
            float(seen)
        ),
        "< 3 ms",
        Some(median(&p50) < 3.0),
    ));
    Ok(())
}
