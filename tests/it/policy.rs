//! A command policy beside ad-hoc commands, and one that changes while the service runs.

use std::fs;
use std::path::{Path, PathBuf};

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

#[tokio::test]
async fn a_changed_policy_is_in_force_soon_and_a_broken_one_is_not() {
    let governed = governed(&template("first")).await;
    governed.has(&["first"]).await;
    let ran = governed.server.run(&of("first")).await;
    assert_eq!(ran["state"], "succeeded", "{ran:#}");
    // Edited in place, and wrong.
    fs::write(&governed.file, "[template.broken]\ncommand = 7\n").unwrap();
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
