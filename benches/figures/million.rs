//! A million jobs through a hub with a thousand simulated nodes: whether its memory and its database stay as they are, and
//! what a job costs it. It takes about twenty minutes, so that it has to be asked for by its name.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

use crate::cluster::{hub, token};
use crate::report::Row;
use crate::service::Scratch;
use crate::stats::{float64, millis};
use crate::{Plan, client, note, processes, simulation};

/// How many jobs, and how many to try the benchmark itself.
const JOBS: u64 = 1_000_000;
const FEW: u64 = 20_000;

/// How many clients.
const CONNECTIONS: usize = 32;

/// How often it is looked.
const LOOKS: u64 = 20;

/// A look at the hub.
#[derive(Clone, Copy)]
struct Look {
    jobs: u64,
    at: Instant,
    cpu: Duration,
    /// Memory and database in MB.
    memory: f64,
    database: f64,
}

/// What a process has used, its threads that have ended included.
fn cpu(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have anything in it.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    let ticks: u64 = fields.iter().sum();
    let second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    let second = u64::try_from(second).map_err(io::Error::other)?;
    Ok(Duration::from_millis(ticks * 1000 / second))
}

/// The size of a store with all that is beside it.
fn database(state: &Path) -> f64 {
    let names = ["procession.db", "procession.db-wal", "procession.db-shm"];
    let sizes = names.map(|name| fs::metadata(state.join(name)).map_or(0, |it| it.len()));
    float64(sizes.iter().sum()) / 1e6
}

/// The figure.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let jobs = if plan.quick { FEW } else { JOBS };
    note(&format!("{jobs} jobs with 1000 nodes"));
    let scratch = Scratch::new()?;
    let hub = hub(&scratch, &["--max-connections", "4096"])?;
    let state = scratch.path().join("hub");
    let token = token(&hub, "sim", &scratch.path().join("token"))?;
    let nodes = simulation::Nodes::join(&hub, &token)?;
    let server = hub.server_pid()?;
    let look = |jobs| -> io::Result<Look> {
        Ok(Look {
            jobs,
            at: Instant::now(),
            cpu: cpu(server)?,
            memory: float64(processes::rss(server)) / 1e3,
            database: database(&state),
        })
    };
    let mut looks = vec![look(0)?];
    let request = hub.short_job("");
    let (mut given, mut failed) = (0, None);
    let load = client::drive(hub.address, CONNECTIONS, || {
        if given == jobs || failed.is_some() {
            return None;
        }
        given += 1;
        if given % (jobs / LOOKS) == 0 {
            match look(given) {
                Ok(look) => {
                    told(looks.last(), &look);
                    looks.push(look);
                }
                Err(error) => failed = Some(error),
            }
        }
        Some(request.clone())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if load.done != jobs {
        let refused = load.refused;
        return Err(io::Error::other(format!("{refused} jobs were refused")));
    }
    hub.wait_for_live(0)?;
    let last = look(jobs)?;
    let first = looks[0];
    nodes.are_all_there(&hub)?;
    let metrics = hub.connect()?.exchange(&hub.request("GET", "/metrics"))?;
    let mut lines = metrics.body.lines();
    let kept = lines.find_map(|line| line.strip_prefix("procession_store_finished_jobs "));
    let kept = kept.unwrap_or("?");
    let (took, used) = (last.at - first.at, last.cpu.saturating_sub(first.cpu));
    let rate = float64(jobs) / took.as_secs_f64();
    let each = millis(used) / float64(jobs);
    let highest = looks.iter().map(|it| it.memory).fold(last.memory, f64::max);
    // In its second half it has as many as it keeps.
    let half = looks[looks.len() / 2].memory;
    rows.push(Row::new(
        "Million",
        format!("{jobs} jobs with 1000 simulated nodes, from {CONNECTIONS} connections"),
        format!("{rate:.0} jobs/s, {each:.2} ms of processor time a job"),
        "≥ 12 jobs/s, a million a day",
        Some(rate >= 12.0),
    ));
    rows.push(Row::new(
        "Million",
        "memory of the hub: before; after the half; at the end; at most",
        format!(
            "{:.0}; {half:.0}; {:.0}; {highest:.0} MB",
            first.memory, last.memory
        ),
        "≤ 200 MB, and no more than a tenth more after the half",
        Some(highest <= 200.0 && last.memory <= half * 1.1),
    ));
    rows.push(Row::new(
        "Million",
        format!("its database, in which {kept} jobs are left"),
        format!("{:.0} MB", last.database),
        "",
        None,
    ));
    Ok(())
}

fn told(before: Option<&Look>, look: &Look) {
    let Some(before) = before else { return };
    let took = (look.at - before.at).as_secs_f64();
    let jobs = float64(look.jobs - before.jobs);
    note(&format!(
        "{} jobs: {:.0} jobs/s, {:.2} ms a job, {:.0} MB of memory, {:.0} MB of database",
        look.jobs,
        jobs / took,
        millis(look.cpu.saturating_sub(before.cpu)) / jobs,
        look.memory,
        look.database
    ));
}
