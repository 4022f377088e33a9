//! Lists: filters, selectors, order, and cursors over live and finished jobs alike.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Server, id, unique_seconds};

fn ids(page: &Value) -> Vec<String> {
    page["jobs"].as_array().unwrap().iter().map(id).collect()
}

/// Every page of a list, one after the other.
async fn pages(server: &Server, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = server
            .get(&format!("/jobs?{query}&page_token={token}"))
            .await
            .json();
        pages.push(ids(&page));
        match page["next_page_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => return pages,
        }
        assert!(pages.len() < 100, "the pages do not end");
    }
}

/// Jobs in every kind of state: finished well and badly, running, queued. Oldest first.
async fn populate(server: &Server) -> Vec<Value> {
    let mut jobs = Vec::new();
    for (name, script, labels) in [
        (
            "report-1",
            "exit 0",
            json!({"team": "data", "tier": "gold"}),
        ),
        ("report-2", "exit 1", json!({"team": "data"})),
        ("backup-1", "exit 0", json!({"team": "ops", "nightly": ""})),
        (
            "backup-2",
            "exit 9",
            json!({"team": "ops", "tier": "silver"}),
        ),
    ] {
        let body = json!({"name": name, "script": script, "labels": labels});
        jobs.push(server.run(&body).await);
    }
    for (name, queue) in [
        ("live-1", "default"),
        ("live-2", "default"),
        ("live-3", "slow"),
        ("live-4", "slow"),
    ] {
        let body = json!({
            "name": name, "command": ["sleep", unique_seconds()],
            "labels": {"team": "live", "tier": "gold"}, "queue": queue,
        });
        jobs.push(server.submit(&body).await);
    }
    jobs
}

#[tokio::test]
async fn filters_select_and_pages_are_complete() {
    let server = Server::builder().args(["--max-running", "2"]).start().await;
    let jobs = populate(&server).await;
    let names = |wanted: &[&str]| -> BTreeSet<String> {
        wanted.iter().map(|name| (*name).to_owned()).collect()
    };
    for (query, wanted) in [
        ("state=succeeded", &["report-1", "backup-1"][..]),
        ("state=failed", &["report-2", "backup-2"]),
        ("state=running", &["live-1", "live-2"]),
        (
            "state=queued,running",
            &["live-1", "live-2", "live-3", "live-4"],
        ),
        (
            "state=queued&state=failed",
            &["live-3", "live-4", "report-2", "backup-2"],
        ),
        ("state=lost", &[]),
        ("name=report-1", &["report-1"]),
        ("name=report-", &[]),
        ("name_prefix=report-", &["report-1", "report-2"]),
        ("name_prefix=REPORT", &[]),
        ("name_prefix=%25", &[]),
        ("queue=slow", &["live-3", "live-4"]),
        ("label_selector=team%3Ddata", &["report-1", "report-2"]),
        (
            "label_selector=team!%3Ddata,team!%3Dlive",
            &["backup-1", "backup-2"],
        ),
        ("label_selector=nightly", &["backup-1"]),
        ("label_selector=!tier", &["report-2", "backup-1"]),
        (
            "label_selector=team%20in%20(data,ops),tier",
            &["report-1", "backup-2"],
        ),
        (
            "label_selector=tier%20notin%20(gold)",
            &["report-2", "backup-1", "backup-2"],
        ),
        (
            "label_selector=tier%3Dgold&state=running",
            &["live-1", "live-2"],
        ),
        ("created_before=2020-01-01T00:00:00Z", &[]),
    ] {
        let page = server.get(&format!("/jobs?{query}")).await.json();
        let found: BTreeSet<String> = page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, names(wanted), "{query}");
        assert_eq!(page["next_page_token"], Value::Null, "{query}");
    }
    // Half-open: at or after the one, before the other.
    let (from, to) = (&jobs[1]["created_at"], &jobs[3]["created_at"]);
    let query = format!(
        "created_after={}&created_before={}",
        from.as_str().unwrap(),
        to.as_str().unwrap()
    );
    let page = server.get(&format!("/jobs?{query}")).await.json();
    assert_eq!(ids(&page), [id(&jobs[2]), id(&jobs[1])]);

    let newest_first: Vec<String> = jobs.iter().rev().map(id).collect();
    let oldest_first: Vec<String> = jobs.iter().map(id).collect();
    for size in [1, 2, 3, 7, 8, 50] {
        for (order, expected) in [
            ("", &newest_first),
            ("&order_by=created_at%20desc", &newest_first),
            ("&order_by=created_at%20asc", &oldest_first),
            ("&order_by=created_at", &oldest_first),
        ] {
            let pages = pages(&server, &format!("page_size={size}{order}")).await;
            assert!(pages.iter().all(|page| page.len() <= size), "{pages:?}");
            assert_eq!(&pages.concat(), expected, "{size} {order}");
        }
    }
    let pages = pages(&server, "page_size=1&state=succeeded,queued").await;
    assert_eq!(
        pages.concat(),
        [7, 6, 2, 0].map(|index: usize| id(&jobs[index]))
    );
    for job in &jobs[4..] {
        server.delete(&id(job), "force").await;
    }
}

#[tokio::test]
async fn a_list_walked_while_jobs_come_and_go_shows_each_job_once() {
    let server = Server::builder().args(["--max-running", "2"]).start().await;
    let before = populate(&server).await;
    let first = server.get("/jobs?page_size=3").await.json();
    // What was live is finished on the later pages; what comes now is before the first page.
    for job in &before[4..] {
        server.stop(&id(job), "force").await;
    }
    server.run(&json!({"command": ["true"]})).await;
    let mut seen = ids(&first);
    let mut token = first["next_page_token"].clone();
    while let Some(next) = token.as_str() {
        let page = server
            .get(&format!("/jobs?page_size=3&page_token={next}"))
            .await
            .json();
        seen.extend(ids(&page));
        token = page["next_page_token"].clone();
    }
    let expected: Vec<String> = before.iter().rev().map(id).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_cursor_belongs_to_its_filter_and_order() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.run(&json!({"command": ["true"]})).await;
    }
    let page = server.get("/jobs?page_size=1").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    let damaged = format!("{}A", &token[1..]);
    for query in [
        format!("page_token={token}&state=failed"),
        format!("page_token={token}&order_by=created_at%20asc"),
        format!("page_token={damaged}"),
        "page_token=x".to_owned(),
        "page_token=%00%ff".to_owned(),
        format!("page_token={token}{token}"),
    ] {
        let reply = server.get(&format!("/jobs?{query}")).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_page_token"),
            "{query}"
        );
    }
    let reply = server
        .get(&format!("/jobs?page_size=2&page_token={token}"))
        .await;
    assert_eq!(
        ids(&reply.json()).len(),
        2,
        "the size may change on the way"
    );
    let large = server.get("/jobs?page_size=1000000").await;
    assert_eq!(ids(&large.json()).len(), 3, "lowered, not refused");
}

/// Bodies are large and so are the jobs made of them: a page has a bound in bytes, and the next one goes on. A page without
/// specs has what it shows as its bound.
#[tokio::test]
async fn a_page_ends_early_where_its_jobs_are_large() {
    let server = Server::start().await;
    let text = "x".repeat(1_000_000);
    let body = json!({"command": ["true"], "stdin": {"mode": "data", "text": text}});
    let mut made = Vec::new();
    for _ in 0..12 {
        made.push(id(&server.submit(&body).await));
    }
    made.reverse();
    let whole = "page_size=1000&view=full";
    let reply = server.get(&format!("/jobs?{whole}")).await;
    assert!(reply.body.len() < 11_000_000, "{} bytes", reply.body.len());
    let found = pages(&server, whole).await;
    assert!(found.len() > 1 && found[0].len() > 4, "{found:?}");
    assert_eq!(found.concat(), made);
    for job in &made {
        server.finished(job).await;
    }
    let brief = "page_size=1000&view=basic";
    let reply = server.get(&format!("/jobs?{brief}")).await;
    assert!(reply.body.len() < 20_000, "{} bytes", reply.body.len());
    assert_eq!(pages(&server, brief).await, [made.clone()]);
    let job = server.get(&format!("/jobs/{}", made[0])).await.json();
    assert_eq!(job["spec"]["stdin"]["text"], text);
}

/// What shows many jobs at once has the bound of a page.
#[tokio::test]
async fn a_wait_and_a_stop_show_no_more_of_large_jobs_than_a_page() {
    let server = Server::start().await;
    let body = json!({"command": ["true"], "env": {"TEXT": "x".repeat(100_000)}, "hold": true, "labels": {"of": "large"}});
    let mut made = Vec::new();
    for _ in 0..120 {
        made.push(id(&server.submit(&body).await));
    }
    let reply = server
        .post(
            "/jobs/wait",
            &json!({"job_ids": made, "timeout_seconds": 0}),
        )
        .await;
    assert!(reply.body.len() < 11_000_000, "{} bytes", reply.body.len());
    let waited = reply.json();
    assert_eq!(
        (&waited["satisfied"], &waited["truncated"]),
        (&json!(false), &json!(true))
    );
    let shown = ids(&waited);
    assert!(shown.len() > 50 && made.starts_with(&shown), "{shown:?}");
    let rest = json!({"job_ids": made[shown.len()..], "timeout_seconds": 0});
    let rest = server.post("/jobs/wait", &rest).await.json();
    assert_eq!(rest["truncated"], false);
    assert_eq!([shown, ids(&rest)].concat(), made);
    let stop = json!({"label_selector": "of=large"});
    let reply = server.post("/jobs/stop", &stop).await;
    assert!(reply.body.len() < 11_000_000, "{} bytes", reply.body.len());
    let stopped = reply.json();
    let results = stopped["results"].as_array().unwrap();
    assert_eq!(results.len(), made.len());
    assert!(
        results.iter().all(|one| one["status"] == 200),
        "{:#}",
        results[0]
    );
    let shown = results.iter().filter(|one| !one["job"].is_null()).count();
    assert!((50..120).contains(&shown), "{shown}");
}

/// A clock that goes back makes no id that sorts before those that are there: who walks the list would miss the job, and
/// the queue would start it before older ones.
#[tokio::test]
async fn ids_go_on_from_the_greatest_that_is_stored() {
    let mut server = Server::start().await;
    server.run_script("exit 0").await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    // As if the clock had been ahead by some years when it was made.
    let ahead = "0298c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f";
    let script = "import sqlite3, sys; store = sqlite3.connect(sys.argv[1]); \
        store.execute('UPDATE finished SET id = ?', [bytes.fromhex(sys.argv[2])]); store.commit()";
    let changed = Command::new("python3")
        .args(["-c", script])
        .arg(server.state_dir().join("procession.db"))
        .arg(ahead.replace('-', ""))
        .output()
        .unwrap();
    assert!(changed.status.success(), "{changed:?}");
    server.start_again(Server::builder()).await;
    let mut made = vec![ahead.to_owned()];
    for _ in 0..3 {
        made.push(id(&server.run_script("exit 0").await));
    }
    assert!(made.is_sorted(), "{made:?}");
    let listed = server.get("/jobs?order_by=created_at").await.json();
    assert_eq!(ids(&listed), made);
}
