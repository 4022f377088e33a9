//! A command policy beside ad-hoc commands, and one that changes while the service runs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Client;
use crate::harness::{Server, eventually, id};

struct Governed {
    server: Server,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

fn template(name: &str) -> String {
    format!(
        "[template.{name}]\ncommand = [\"/bin/echo\", \"{{who}}\"]\nparams.who = {{ type = \"enum\", values = [\"you\"] }}\n"
    )
}

async fn governed(text: &str) -> Governed {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    fs::write(&file, text).unwrap();
    let flag = file.display().to_string();
    let server = Server::builder().args(["--policy".to_owned(), flag]);
    Governed {
        server: server.start().await,
        file,
        _folder: folder,
    }
}

/// As editors do: a new file in the place of the old one.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, file).unwrap();
}

fn of(name: &str) -> Value {
    json!({"template": name, "params": {"who": "you"}})
}

impl Governed {
    async fn names(&self) -> Vec<String> {
        let list = self.server.get("/templates").await.json();
        let list = list["templates"].as_array().unwrap().iter();
        list.map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn has(&self, names: &[&str]) {
        eventually(&format!("the templates are {names:?}"), async || {
            (self.names().await == names).then_some(())
        })
        .await;
    }

    /// What the log says of policies that cannot be used.
    fn complaints(&self) -> usize {
        self.server
            .log()
            .matches("command policy cannot be used")
            .count()
    }
}

#[tokio::test]
async fn templates_are_there_beside_what_clients_say_themselves() {
    let governed = governed(&format!("mode = \"also\"\n{}", template("greet"))).await;
    let server = &governed.server;
    let list = server.get("/templates").await.json();
    assert_eq!(
        (&list["only"], list["templates"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    assert_eq!(server.get("/info").await.json()["policy"], false);
    let greeted = server.run(&of("greet")).await;
    assert_eq!(server.stdout(&id(&greeted)).await, "you\n");
    let own = server.run_script("echo mine").await;
    assert_eq!(server.stdout(&id(&own)).await, "mine\n");
    let again = server
        .post(&format!("/jobs/{}/rerun?wait=30", id(&own)), &json!({}))
        .await;
    assert_eq!(again.json()["state"], "succeeded", "{again}");
    let mut greets = of("greet");
    greets["key"] = json!("greets");
    let batch = json!({"jobs": [greets, {"key": "own", "script": "true"}]});
    let reply = server.post("/batches", &batch).await;
    assert_eq!(reply.status, 201, "{reply}");
    let unknown = server.post("/jobs", &of("other")).await;
    assert_eq!(unknown.code(), "no_such_template", "{unknown}");
    let both = json!({"template": "greet", "params": {"who": "you"}, "script": "true"});
    let both = server.post("/jobs", &both).await;
    assert_eq!(both.status, 422, "{both}");
    let none = server.post("/jobs", &json!({"name": "x"})).await;
    assert_eq!(none.json()["errors"][0]["pointer"], "/command", "{none}");
    let mut command = server.client();
    command.args(["run", "--template", "greet", "--param", "who=you"]);
    assert_eq!(Client::start(command).end().good().text(), "you\n");
    let mut command = server.client();
    command.arg("templates");
    assert!(Client::start(command).end().good().text().contains("greet"));
}

/// The policy says what runs; where and when is not its matter.
#[tokio::test]
async fn a_job_of_a_template_runs_again_whatever_its_queue_and_priority() {
    let governed = governed(&template("greet")).await;
    let server = &governed.server;
    let settings = json!({"default_priority": 5});
    let queue = server
        .request(Method::PUT, "/queues/default")
        .json(&settings);
    assert_eq!(server.send(queue).await.status, 201);
    let job = server.run(&of("greet")).await;
    assert_eq!(job["spec"]["priority"], 5, "{job:#}");
    let path = format!("/jobs/{}/rerun?wait=30", id(&job));
    for patch in [
        json!({}),
        json!({"queue": "other"}),
        json!({"priority": 7}),
        json!({"weight": 2, "concurrency": {"key": "k"}}),
    ] {
        let again = server.post(&path, &patch).await;
        assert_eq!(again.status, 201, "{patch}: {again}");
    }
    let other = json!({"timeout_seconds": 9});
    assert_eq!(server.post(&path, &other).await.code(), "policy_forbids");
}

#[tokio::test]
async fn a_client_says_where_a_job_of_a_template_waits_unless_the_template_does() {
    let fixed = "[template.fixed]\ncommand = [\"/bin/true\"]\nspec = { queue = \"backup\" }\n";
    let governed = governed(&format!("{}{fixed}", template("free"))).await;
    let server = &governed.server;
    let settings = json!({"default_priority": 3});
    let queue = server
        .request(Method::PUT, "/queues/backup")
        .json(&settings);
    assert_eq!(server.send(queue).await.status, 201);
    let turn = json!({"queue": "night", "priority": 7, "weight": 2, "concurrency": {"key": "k"}});
    let with = |name: &str, turn: &Value| {
        let mut body = of(name);
        let fields = turn.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        body
    };
    let body = with("free", &turn);
    let valid = server.post("/jobs/validate", &body).await;
    assert_eq!(valid.json()["spec"]["queue"], "night", "{valid}");
    let job = server.run(&body).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let spec = &job["spec"];
    let told = json!({
        "queue": spec["queue"], "priority": spec["priority"], "weight": spec["weight"],
        "concurrency": {"key": spec["concurrency"]["key"]},
    });
    assert_eq!(told, turn, "{job:#}");
    let again = server
        .post(&format!("/jobs/{}/rerun", id(&job)), &json!({}))
        .await;
    assert_eq!(again.json()["spec"], job["spec"], "{again}");
    // In a batch the fields may come from its defaults; a schedule makes such a job too.
    let batch =
        json!({"defaults": {"queue": "night"}, "jobs": [with("free", &json!({"key": "a"}))]});
    let batch = server.post("/batches?wait=30", &batch).await;
    assert_eq!(batch.json()["state"], "succeeded", "{batch}");
    let schedule = json!({"cron": "@yearly", "job": body});
    let schedule = server.request(Method::PUT, "/schedules/s").json(&schedule);
    assert_eq!(server.send(schedule).await.status, 201);
    let run = server.post("/schedules/s/run?wait=30", &json!({})).await;
    assert_eq!(run.json()["spec"]["priority"], 7, "{run}");

    // The template, then its queue, then the service.
    let plain = server.run(&json!({"template": "fixed"})).await;
    let (queue, priority) = (&plain["spec"]["queue"], &plain["spec"]["priority"]);
    assert_eq!((queue, priority), (&json!("backup"), &json!(3)));
    let mut body = turn.clone();
    body["template"] = json!("fixed");
    let refused = server.post("/jobs", &body).await;
    assert_eq!(refused.status, 422, "{refused}");
    let errors = refused.json()["errors"].clone();
    assert_eq!(errors.as_array().map(Vec::len), Some(1), "{refused}");
    let told = (&errors[0]["pointer"], &errors[0]["code"]);
    assert_eq!(told, (&json!("/queue"), &json!("conflict")), "{refused}");
    let path = format!("/jobs/{}/rerun", id(&plain));
    let moved = server.post(&path, &json!({"queue": "night"})).await;
    assert_eq!(moved.code(), "policy_forbids", "{moved}");
    // What is there already may be moved.
    let held = json!({"template": "fixed", "hold": true});
    let held = id(&server.submit(&held).await);
    let patch = server.request(Method::PATCH, &format!("/jobs/{held}"));
    let patch = patch.header("content-type", "application/merge-patch+json");
    let moved = server.send(patch.body(r#"{"queue": "night"}"#)).await;
    assert_eq!(moved.json()["spec"]["queue"], "night", "{moved}");
    let after = with("free", &json!({"depends_on": [{"job": held}]}));
    let after = server.submit(&after).await;
    server.waits_for(&after, "waiting_for_dependencies").await;
    server.stop(&held, "").await;
    let after = server.finished(&id(&after)).await;
    assert_eq!(after["state_reason"], "dependency_failed", "{after:#}");

    let mut command = server.client();
    command.args([
        "run",
        "--template",
        "free",
        "--param",
        "who=you",
        "--queue",
        "night",
    ]);
    assert_eq!(Client::start(command).end().good().text(), "you\n");
}

#[tokio::test]
async fn a_changed_policy_is_in_force_soon_and_a_broken_one_is_not() {
    let governed = governed(&template("first")).await;
    governed.has(&["first"]).await;
    let ran = governed.server.run(&of("first")).await;
    assert_eq!(ran["state"], "succeeded", "{ran:#}");
    // Edited in place, and wrong; at no moment empty.
    let wrong = format!("{:200}", "[template.broken]\ncommand = 7\n");
    let mut file = fs::File::options().write(true).open(&governed.file);
    file.as_mut().unwrap().write_all(wrong.as_bytes()).unwrap();
    eventually("the log complains", async || {
        (governed.complaints() > 0).then_some(())
    })
    .await;
    let ran = governed.server.run(&of("first")).await;
    assert_eq!(ran["state"], "succeeded", "{ran:#}");
    replace(
        &governed.file,
        &format!("{}{}", template("second"), template("third")),
    );
    governed.has(&["second", "third"]).await;
    assert_eq!(governed.complaints(), 1, "{}", governed.server.log());
    let gone = governed.server.post("/jobs", &of("first")).await;
    assert_eq!(gone.code(), "no_such_template", "{gone}");
    let forbidden = governed
        .server
        .post("/jobs", &json!({"script": "true"}))
        .await;
    assert_eq!(
        (forbidden.status, forbidden.code()),
        (403, "policy_forbids".to_owned())
    );
    replace(&governed.file, "mode = \"also\"\n[template]\n");
    governed.has(&[]).await;
    let own = governed.server.run_script("true").await;
    assert_eq!(own["state"], "succeeded", "{own:#}");
    // Gone, or no file at all: what was read last stays.
    fs::remove_file(&governed.file).unwrap();
    nix::unistd::mkfifo(&governed.file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    eventually("the log complains again", async || {
        (governed.complaints() > 1).then_some(())
    })
    .await;
    let own = governed.server.run_script("true").await;
    assert_eq!(own["state"], "succeeded", "{own:#}");
}
