//! Every role is killed, at any moment, and nothing is lost of what was promised.

mod checkable;
mod errors;
mod late;
mod leader;
mod leaks;
mod lost;
mod points;
mod random;
mod remains;

use std::collections::HashMap;
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Persistent, Server, id};
use checkable::{Checkable, Found};

/// How often each token stands in the file of runs.
fn runs(file: &Path) -> HashMap<String, usize> {
    let mut runs = HashMap::new();
    for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
        *runs.entry(line.to_owned()).or_default() += 1;
    }
    runs
}

/// Creates the job, however often that takes, and gives its id.
async fn post(client: &Persistent, job: &Checkable) -> String {
    let reply = client
        .ask(Method::POST, "/jobs", Some(&job.body), Some(&job.token))
        .await;
    assert_eq!(reply.status, 201, "{reply}");
    let view = reply.json();
    assert_eq!(view["name"], job.token, "{view:#}");
    id(&view)
}

/// One stream of a job's output.
async fn stream(client: &Persistent, id: &str, stream: &str) -> String {
    let reply = client.get(&format!("/jobs/{id}/output/{stream}")).await;
    assert_eq!(reply.status, 200, "{reply}");
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// What is wrong with a job that has ended, as it is told now.
async fn judge(
    client: &Persistent,
    id: &str,
    job: &Checkable,
    ran: &HashMap<String, usize>,
    may_be_lost: bool,
) -> (Value, Result<(), String>) {
    let view = client.get(&format!("/jobs/{id}")).await.json();
    let stdout = stream(client, id, "stdout").await;
    let stderr = stream(client, id, "stderr").await;
    let found = Found {
        stdout: &stdout,
        stderr: &stderr,
        runs: ran.get(&job.token).copied().unwrap_or_default(),
        bursts: job.noted(ran),
        may_be_lost,
    };
    let verdict = job.check(&view, &found);
    (view, verdict)
}

/// The files that a job should not have any more once it has ended and its end is stored.
pub(crate) fn leftover_files(server: &Server) -> Vec<String> {
    let jobs = std::fs::read_dir(server.state_dir().join("jobs")).unwrap();
    jobs.flatten()
        .filter(|job| !crate::harness::is_spare(job))
        .flat_map(|job| {
            std::fs::read_dir(job.path())
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter(|file| {
            let name = file.file_name();
            name == "record" || name == "control"
        })
        .map(|file| file.path().display().to_string())
        .collect()
}
