//! What a database or an API node has lost or missed comes back from those who have it.

use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::json;

use super::faults::Load;
use super::{Apis, Postgres, STEADY};
use crate::cluster::kill_service;
use crate::harness::{LONG, amount, blocking_until, eventually};
use crate::history::wire::Mode;

fn number(postgres: &Postgres, sql: &str) -> u64 {
    postgres.sql(sql).trim().parse().unwrap()
}

fn last(postgres: &Postgres) -> u64 {
    number(postgres, "SELECT seq FROM procession.leader")
}

/// A database with a copy that commits do not wait for, and API nodes that know both.
async fn with_a_copy(apis: usize, args: &[&str]) -> (Apis, Postgres) {
    let primary = Postgres::start();
    let copy = primary.copy();
    let url = format!(
        "postgres://procession@{},{}/postgres",
        primary.host(),
        copy.host()
    );
    let all = Apis::start_at(primary, url, apis, 2, args).await;
    (all, copy)
}

/// The copy stops, more is accepted, the primary dies, and the copy takes over without that. Gives what was lost.
async fn fall_over(all: &mut Apis, copy: &mut Postgres, load: &mut Load) -> (u64, u64) {
    load.submit(all, 4).await;
    let had = last(&all.postgres);
    let has_all = || last(copy) >= had;
    assert!(blocking_until(LONG, has_all), "the copy follows");
    copy.end(Signal::SIGINT);
    load.submit(all, 6).await;
    // Whoever is to give it back has it.
    let (leader, _) = all.leader().await;
    eventually("the others have everything", async || {
        let ledger = all.ledger(leader).await?;
        let followers = ledger["followers"].as_array()?;
        let is_even = followers.iter().all(|it| it["behind"] == 0);
        (is_even && ledger["seq"].as_u64()? >= had + 6).then_some(())
    })
    .await;
    let lost = last(&all.postgres);
    assert!(lost >= had + 6, "{had} {lost}");
    (had, lost)
}

#[tokio::test]
async fn the_leader_appends_again_what_an_asynchronous_failover_has_lost() {
    let (mut all, mut copy) = with_a_copy(2, &STEADY).await;
    let (first, epoch) = all.leader().await;
    let mut load = Load::new(&all);
    let (_, lost) = fall_over(&mut all, &mut copy, &mut load).await;
    all.postgres.end(Signal::SIGKILL);
    copy.begin();
    let before = last(&copy);
    assert!(before < lost, "{before} {lost}");
    copy.promote();
    let has_it = || last(&copy) >= lost;
    assert!(blocking_until(LONG, has_it), "it is given back");
    assert_eq!(all.leader().await, (first, epoch), "the same one leads");
    assert!(all.apis[first].log().contains("they are appended again"));
    load.submit(&all, 4).await;
    load.judge(&all).await;
    all.are_equal().await;
    drop(copy);
}

#[tokio::test]
async fn a_follower_appends_it_if_the_leader_died_with_the_database() {
    let (mut all, mut copy) = with_a_copy(3, &[]).await;
    let (first, epoch) = all.leader().await;
    let mut load = Load::new(&all);
    let (_, lost) = fall_over(&mut all, &mut copy, &mut load).await;
    all.postgres.end(Signal::SIGKILL);
    kill_service(&mut all.apis[first]);
    copy.begin();
    let before = last(&copy);
    assert!(before < lost, "{before} {lost}");
    copy.promote();
    all.is_followed(first, epoch).await;
    assert!(last(&copy) >= lost);
    load.submit(&all, 4).await;
    all.start_again(first).await;
    load.judge(&all).await;
    all.are_equal().await;
    drop(copy);
}

#[tokio::test]
async fn one_that_was_away_for_long_reads_the_snapshot_that_is_made_under_load() {
    let mut all = Apis::start(2, 2, &[]).await;
    let (leader, _) = all.leader().await;
    let away = all.follower(leader);
    let mut load = Load::new(&all);
    load.submit(&all, 3).await;
    all.apis[away].end(Signal::SIGTERM);
    let had = last(&all.postgres);
    let api = &all.apis[leader];
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let changing = async {
        for step in 0..150_u32 {
            // The log grows by it, and the store does not.
            let letters = (0..8 << 10).map(|_| char::from(random.random_range(b' '..b'~')));
            let noise: String = letters.collect();
            let job = json!({"command": ["true", noise]});
            let body = json!({"cron": "30 2 1 1 *", "job": job});
            let path = format!("/schedules/s{}", step % 3);
            let reply = api.send(api.request(Method::PUT, &path).json(&body)).await;
            assert!([200, 201].contains(&reply.status), "{reply}");
        }
    };
    tokio::join!(changing, load.submit(&all, 20));
    let first_kept = "SELECT min(seq) FROM procession.changes";
    let is_cut = || number(&all.postgres, first_kept) > had + 1;
    assert!(blocking_until(LONG, is_cut), "the log is cut back");
    let snapshot = "SELECT snapshot FROM procession.leader";
    assert!(number(&all.postgres, snapshot) > had);
    // No older one is kept, and the log from there on is whole.
    assert_eq!(
        number(
            &all.postgres,
            "SELECT count(DISTINCT seq) FROM procession.snapshots"
        ),
        1
    );
    assert_eq!(
        number(
            &all.postgres,
            "SELECT max(seq) - min(seq) + 1 - count(*) FROM procession.changes"
        ),
        0
    );
    all.start_again(away).await;
    assert!(all.apis[away].log().contains("reads the snapshot"));
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
}

/// The log is as long as is said before it is cut back, and 1000 changes before the snapshot stay, as is released. It is 64 MiB
/// in a release, which `make soak-cluster` waits for.
#[tokio::test]
async fn the_log_is_cut_back_no_sooner_than_is_said_and_who_slept_over_it_reads_the_snapshot() {
    const RELEASED: u32 = 64;
    let long = amount("PROCESSION_LOG_MIB", 6);
    let mut all = Apis::start(2, 1, &[]).await;
    for place in ["ledger.long", "ledger.kept"] {
        std::fs::remove_file(all.keys.path().join(place)).unwrap();
    }
    if long != RELEASED {
        let bytes = (long << 20).to_string();
        std::fs::write(all.keys.path().join("ledger.long"), bytes).unwrap();
    }
    let long = usize::try_from(long << 20).unwrap();
    // So that there are more than 1000 of them.
    let size = long / 1100;
    let (leader, _) = all.leader().await;
    let away = all.follower(leader);
    let mut load = Load::new(&all);
    load.submit(&all, 3).await;
    all.apis[away].end(Signal::SIGTERM);
    let snapshot = "SELECT snapshot FROM procession.leader";
    let before = number(&all.postgres, snapshot);
    // Both at one moment: a snapshot takes changes away.
    let length = format!(
        "SELECT CASE WHEN (SELECT snapshot FROM procession.leader) = {before} \
         THEN sum(length(body)) ELSE 0 END FROM procession.changes"
    );
    let api = &all.apis[leader];
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let letters = (0..200_000).map(|_| char::from(random.random_range(b' '..b'~')));
    let noise: String = letters.collect();
    let (mut written, most) = (0, u64::try_from(long + long / 4).unwrap());
    // The store stays small, so that the length of the log alone decides.
    while let present @ 1.. = number(&all.postgres, &length) {
        written = present;
        assert!(written < most, "{written} bytes, and no snapshot");
        for step in 0..20 {
            let from = random.random_range(0..noise.len() - size);
            let job = json!({"command": ["true", noise[from..from + size]]});
            let body = json!({"cron": "30 2 1 1 *", "job": job});
            let path = format!("/schedules/s{}", step % 3);
            let reply = api.send(api.request(Method::PUT, &path).json(&body)).await;
            assert!([200, 201].contains(&reply.status), "{reply}");
        }
    }
    eprintln!("FIGURE log_bytes_at_the_snapshot {written}");
    let least = u64::try_from(long - long / 16).unwrap();
    assert!(written > least, "a snapshot after {written} bytes");
    let first_kept = "SELECT min(seq) FROM procession.changes";
    let is_cut = || number(&all.postgres, first_kept) + 999 == number(&all.postgres, snapshot);
    assert!(blocking_until(LONG, is_cut), "1000 changes stay");
    all.start_again(away).await;
    assert!(all.apis[away].log().contains("reads the snapshot"));
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_changes_are_lost_for_good_has_those_that_came_in_their_place() {
    let mut all = Apis::start_apart(3, 0, &[]).await;
    let mut copy = all.postgres.copy();
    let (first, epoch) = all.leader().await;
    let [ahead, behind] = [(first + 1) % 3, (first + 2) % 3];
    let queued = json!({"command": ["true"], "labels": {"of": "this"}});
    let had = last(&all.postgres);
    let has_all = || last(&copy) >= had;
    assert!(blocking_until(LONG, has_all), "the copy follows");
    copy.end(Signal::SIGINT);
    let ways = all.ways.as_ref().unwrap();
    ways.database[behind].set(Mode::Cut);
    for _ in 0..20 {
        all.apis[first].submit(&queued).await;
    }
    let lost = last(&all.postgres);
    eventually("one has what will be lost", async || {
        let ledger = all.ledger(first).await?;
        let followers = ledger["followers"].as_array()?;
        let is_even = followers.iter().any(|it| it["behind"] == 0);
        (is_even && ledger["seq"].as_u64()? >= lost).then_some(())
    })
    .await;
    ways.database[ahead].set(Mode::Cut);
    kill_service(&mut all.apis[first]);
    all.postgres.end(Signal::SIGKILL);
    // The copy comes to where the primary was.
    copy.set("listen_addresses=127.0.0.1");
    copy.begin();
    copy.promote();
    let ways = all.ways.as_ref().unwrap();
    ways.database[behind].set(Mode::Open);
    eventually("the one that has less leads", async || {
        let ledger = all.ledger(behind).await?;
        (ledger["role"] == "leads" && ledger["epoch"].as_u64() > Some(epoch)).then_some(())
    })
    .await;
    let taken = last(&copy);
    assert!(taken < lost, "{taken} {lost}");
    ways.database[ahead].set(Mode::Open);
    eventually("the one that has more has connected", async || {
        let ledger = all.ledger(behind).await?;
        let followers = ledger["followers"].as_array()?;
        followers.iter().any(|it| it["heard"] == true).then_some(())
    })
    .await;
    for _ in 0..30 {
        all.apis[behind].submit(&queued).await;
    }
    assert!(last(&copy) > lost);
    eventually("it notices", async || {
        let log = all.apis[ahead].log();
        log.contains("is not the log's; it is replaced")
            .then_some(())
    })
    .await;
    all.start_again(first).await;
    let list = all.apis[first].get("/jobs?label_selector=of%3Dthis&page_size=100");
    let list = list.await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 30, "{list:#}");
    all.are_equal().await;
    drop(copy);
}
