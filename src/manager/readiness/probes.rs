//! A port that is open, and a file that is there: both are looked for again and again.

use std::os::fd::AsFd;

use tokio::sync::oneshot;

use super::{Found, Look};
use job::Job;
use job::ready::Address;
use job::time::Timestamp;
use job::workspace::InnerPath;
use linux::ports::{self, Port, Ports};
use linux::{beneath, clock};

/// The times of files are those of the last tick of the kernel's clock.
const TICK_MICROS: i64 = 10_000;

/// What a look at a port has found.
enum Listening {
    Here(Port),
    Not(String),
}

/// Looks for a socket of a process of the job that listens.
pub(super) async fn port(look: &Look, port: u16, address: Address, found: oneshot::Sender<Found>) {
    loop {
        if let Some(tree) = look.tree() {
            let looked = tokio::task::spawn_blocking(move || {
                let pids: Vec<i32> = tree.members().iter().map(|stat| stat.pid).collect();
                judge(ports::at(&pids, port), port, address)
            });
            match looked.await {
                Ok(Listening::Here(Port { address, pid, .. })) => {
                    let message = Some(format!("port {port} at {address}, process {pid}"));
                    let at = clock::wall();
                    let _ = found.send(Found { at, message });
                    return;
                }
                Ok(Listening::Not(why)) => look.say(why),
                Err(error) => look.say(error.to_string()),
            }
        }
        look.pause().await;
    }
}

/// Looks for a file in the workspace, which has come since the attempt began.
pub(super) async fn file(look: &Look, path: &InnerPath, found: oneshot::Sender<Found>) {
    loop {
        let (shared, job, path) = (look.shared.clone(), look.present(), path.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let directory = shared.workspaces.of(job.id).ok()?;
            let opened = beneath::file(directory.as_fd(), path.as_str(), |_| true);
            let (_, stat) = opened.ok()?;
            let micros = stat.st_ctime.saturating_mul(1_000_000) + stat.st_ctime_nsec / 1000;
            is_new(&job, micros).then_some(path)
        });
        if let Ok(Some(path)) = looked.await {
            let message = Some(format!("file {path}"));
            let at = clock::wall();
            let _ = found.send(Found { at, message });
            return;
        }
        look.say("there is no such file in its workspace since it has started");
        look.pause().await;
    }
}

/// Has what was changed then come since the present attempt began?
fn is_new(job: &Job, micros: i64) -> bool {
    let began = job.attempt_started_at().map(Timestamp::as_micros);
    began.is_some_and(|began| micros + TICK_MICROS >= began)
}

fn judge(ports: Ports, port: u16, address: Address) -> Listening {
    let admitted = ports.found.iter().find(|it| address.admits(it.address));
    if let Some(port) = admitted {
        return Listening::Here(*port);
    }
    Listening::Not(if let Some(other) = ports.found.first() {
        let wanted = address.as_str();
        format!(
            "process {} listens on port {port} at {}, which is not {wanted}",
            other.pid, other.address
        )
    } else if !ports.complete {
        format!("nothing listens on port {port}, so far as the service may look")
    } else if ports::is_taken(port) {
        format!("a process that is none of the job's listens on port {port}")
    } else {
        format!("nothing listens on port {port}")
    })
}
