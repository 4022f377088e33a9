//! A process is killed at each durable step, before it and after it.

use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::checkable::{Checkable, Kind};
use super::{judge, leftover_files, post, runs};
use crate::harness::{Builder, Persistent, Server, eventually, is_spare, processes_with};

/// Whom a place kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// Who comes by.
    Itself,
    /// The monitor of a leader that is about to execute its program.
    Parent,
    Supervisor,
}
use Whom::{Itself, Parent, Supervisor};

/// After so many rounds the service is changed for a new one, so that starts are tried as well.
const ROUNDS_A_SERVICE: u32 = 20;

#[tokio::test]
async fn the_server_is_killed_where_it_accepts() {
    let places = [
        "job.accepting",
        "store.committing",
        "store.committed",
        "job.accepted",
    ];
    try_all(&places, Itself, &[Kind::Plain]).await;
}

#[tokio::test]
async fn the_server_is_killed_where_it_launches() {
    try_all(
        &["launch.sending", "launch.sent"],
        Itself,
        &[Kind::Plain, Kind::Quick],
    )
    .await;
}

#[tokio::test]
async fn the_server_is_killed_where_it_ends_a_job() {
    let places = [
        "end.storing",
        "end.stored",
        "record.removing",
        "record.removed",
    ];
    try_all(&places, Itself, &[Kind::Plain, Kind::Quick, Kind::Short]).await;
}

#[tokio::test]
async fn the_supervisor_is_killed_where_it_forks() {
    try_all(
        &["monitor.forking", "monitor.forked"],
        Itself,
        &[Kind::Plain],
    )
    .await;
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_begins() {
    let places = [
        "monitor.started",
        "directory.made",
        "record.made",
        "leader.forked",
    ];
    try_all(&places, Itself, &[Kind::Plain]).await;
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_waits_for_its_job_to_be_durable() {
    for whom in [Itself, Supervisor] {
        try_all(&["launch.held", "launch.let_go"], whom, &[Kind::Plain]).await;
    }
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_takes_the_directory_of_a_job_before() {
    for (places, whom) in [
        (
            &["spare.taking", "directory.made", "record.made"][..],
            Itself,
        ),
        (&LEADER[..2], Parent),
        (&["spare.taking", "leader.recorded"][..], Supervisor),
    ] {
        for (place, script) in places
            .iter()
            .flat_map(|it| [(it, "true"), (it, "echo once")])
        {
            let trial = Trial::start().await;
            trial.has_spare(script).await;
            trial.run(place, whom, Kind::Plain, 1).await;
        }
    }
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_records_the_start() {
    try_all(
        &["start.recording", "start.recorded"],
        Itself,
        &[Kind::Plain, Kind::Stdin],
    )
    .await;
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_records_the_exit() {
    let places = ["exit.recording", "exit.recorded", "leader.reaped"];
    try_all(&places, Itself, &[Kind::Plain, Kind::Children]).await;
}

#[tokio::test]
async fn a_monitor_is_killed_where_it_records_the_end() {
    let places = ["end.recording", "end.recorded", "end.told", "monitor.idle"];
    try_all(&places, Itself, &[Kind::Plain, Kind::Quick, Kind::Short]).await;
}

pub(super) const LEADER: [&str; 4] = [
    "leader.recording",
    "leader.recorded",
    "leader.confirmed",
    "leader.executing",
];

#[tokio::test]
async fn a_monitor_is_killed_while_its_leader_gets_ready() {
    try_all(&LEADER, Parent, &[Kind::Plain]).await;
}

#[tokio::test]
async fn a_monitor_is_killed_while_its_leader_fails() {
    try_all(&LEADER[..3], Parent, &[Kind::Missing]).await;
}

#[tokio::test]
async fn the_supervisor_is_killed_at_any_step_of_a_monitor() {
    let places = [
        "monitor.started",
        "directory.made",
        "record.made",
        "leader.recorded",
        "leader.executing",
        "start.recorded",
        "exit.recorded",
        "end.recorded",
    ];
    try_all(&places, Supervisor, &[Kind::Plain]).await;
}

#[tokio::test]
async fn the_supervisor_is_killed_at_any_step_of_a_server() {
    let places = [
        "store.committed",
        "launch.sending",
        "launch.sent",
        "end.stored",
    ];
    try_all(&places, Supervisor, &[Kind::Plain]).await;
}

#[tokio::test]
async fn a_rescuer_is_killed_as_well() {
    try_all(
        &["rescue.recording", "rescue.recorded"],
        Itself,
        &[Kind::Plain],
    )
    .await;
}

async fn try_all(places: &[&str], whom: Whom, kinds: &[Kind]) {
    let rounds: u32 =
        std::env::var("PROCESSION_FAILPOINT_ROUNDS").map_or(1, |text| text.parse().unwrap());
    for place in places {
        for kind in kinds {
            let mut left = rounds;
            while left > 0 {
                let now = left.min(ROUNDS_A_SERVICE);
                Trial::start().await.run(place, whom, *kind, now).await;
                left -= now;
            }
        }
    }
}

struct Trial {
    server: Server,
    client: Persistent,
    armed: PathBuf,
    env: Vec<(String, String)>,
    runs: PathBuf,
}

impl Trial {
    async fn start() -> Self {
        let armed = tempfile::tempdir().unwrap().keep();
        let env = (
            "PROCESSION_FAILPOINTS".to_owned(),
            armed.display().to_string(),
        );
        let server = Server::builder().env(&env.0, &env.1).start().await;
        Self {
            client: server.persistent(),
            runs: server.scratch().join("runs"),
            server,
            armed,
            env: vec![env],
        }
    }

    /// Has the directory of a job be kept for the next.
    async fn has_spare(&self, script: &str) {
        self.server.run_script(script).await;
        eventually("a directory is kept", async || {
            let mut kept = std::fs::read_dir(self.server.state_dir().join("jobs")).ok()?;
            kept.find(|entry| is_spare(entry.as_ref().unwrap()))
        })
        .await
        .unwrap();
    }

    fn arm(&self, place: &str, whom: &str) {
        // Written beside and moved, so that nobody reads it half written.
        let beside = self.armed.join("new");
        std::fs::write(&beside, whom).unwrap();
        std::fs::rename(beside, self.armed.join(place)).unwrap();
    }

    async fn run(mut self, place: &str, whom: Whom, kind: Kind, rounds: u32) {
        let mut rng = StdRng::seed_from_u64(7);
        for round in 0..rounds {
            let job = Checkable::new(kind, &mut rng, &self.runs);
            if place.starts_with("rescue.") {
                self.arm("start.recorded", "");
            }
            let supervisor = self.server.supervisor().to_string();
            self.arm(
                place,
                match whom {
                    Itself => "",
                    Parent => "parent",
                    Supervisor => &supervisor,
                },
            );
            let client = self.client.clone();
            let life = async {
                let id = post(&client, &job).await;
                client.finished(&id).await;
                id
            };
            let id = tokio::select! {
                id = life => id,
                never = self.keep_alive() => never,
            };
            let struck = self.armed.join(place);
            eventually(&format!("{place} is come by"), async || {
                (!struck.exists()).then_some(())
            })
            .await;
            // A place after the job's end may have killed somebody just now.
            if self.server.has_ended() {
                self.server.restart(self.builder());
                self.client.moved(&self.server);
            }
            let ran = runs(&self.runs);
            let (view, verdict) = judge(&self.client, &id, &job, &ran, false).await;
            if let Err(why) = verdict {
                panic!(
                    "{place}, {whom:?}, {kind:?}, round {round}: {why}\n{view:#}\n{}",
                    self.server.log()
                );
            }
            assert_eq!(
                processes_with(&job.seconds),
                [],
                "{place}, {whom:?}: {view:#}"
            );
        }
        eventually(
            &format!("{place}, {whom:?}: no record is left"),
            async || leftover_files(&self.server).is_empty().then_some(()),
        )
        .await;
        std::fs::remove_dir_all(&self.armed).unwrap();
    }

    fn builder(&self) -> Builder {
        let pairs = self.env.iter();
        pairs.fold(Server::builder(), |builder, (name, value)| {
            builder.env(name, value)
        })
    }

    /// Starts the service again whenever it has ended.
    async fn keep_alive(&mut self) -> ! {
        loop {
            eventually_ended(&mut self.server).await;
            self.server.restart(self.builder());
            self.client.moved(&self.server);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody announces a death")]
async fn eventually_ended(server: &mut Server) {
    while !server.has_ended() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
