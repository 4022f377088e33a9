//! Many files as one: down as archives, and up, unpacked; forms with files; files of other jobs; and how much of all that.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::{file, is_gone, listed, text, workspace};
use crate::harness::{LONG, Reply, Server, amount, eventually, id};

/// Gives a program this input, and returns what it says. It must succeed.
fn through(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program} {args:?}");
        output.stdout
    })
}

pub(crate) fn said(program: &str, args: &[&str], input: &[u8]) -> String {
    String::from_utf8(through(program, args, input)).unwrap()
}

/// An archive that Python makes of these lines, which use `a` as an open tarfile.
pub(crate) fn made(lines: &str) -> Vec<u8> {
    let program = format!(
        "import io, sys, tarfile\nout = io.BytesIO()\na = tarfile.open(fileobj=out, mode='w')\n\
         def add(name, kind=tarfile.REGTYPE, content=b'', link='', mode=0o644):\n\
         \x20   it = tarfile.TarInfo(name); it.type = kind; it.size = len(content); it.linkname = link; it.mode = mode\n\
         \x20   a.addfile(it, io.BytesIO(content))\n\
         {lines}\na.close()\nsys.stdout.buffer.write(out.getvalue())"
    );
    through("python3", &["-c", &program], b"")
}

pub(crate) const FORM: &str = "multipart/form-data; boundary=b0undary";

/// A form of these parts, each with its name.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b0undary--\r\n");
    body
}

async fn post_form(server: &Server, key: &str, job: &Value, parts: &[(&str, &[u8])]) -> Reply {
    let job = job.to_string();
    let mut all = vec![("job", job.as_bytes())];
    all.extend_from_slice(parts);
    let request = server.request(Method::POST, "/jobs?wait=30");
    let request = request.header("content-type", FORM);
    server
        .send(request.header("idempotency-key", key).body(form(&all)))
        .await
}

#[tokio::test]
async fn archives_open_in_other_programs_and_hold_what_is_kept() {
    let server = Server::start().await;
    let long = "n".repeat(200);
    let script = format!(
        "mkdir -p out/{long}; cd out; seq 300 | split -l 1 -a 5 - f; echo ü > grün; echo x > {long}/{long}; chmod 750 grün; \
         ln -s /etc/passwd link; mkfifo pipe; echo rest > ../rest"
    );
    let job = server
        .run(&json!({"script": script, "artifacts": {"paths": ["out"]}}))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let job = id(&job);
    let archive = async |kind: &str| {
        let reply = server.get(&format!("/jobs/{job}/files.{kind}")).await;
        assert_eq!(reply.status, 200, "{}", reply.code());
        reply.body
    };
    for (kind, flags) in [("tar", "-tf"), ("tar.gz", "-tzf")] {
        let bytes = archive(kind).await;
        let names = said("tar", &["--quoting-style=literal", flags, "-"], &bytes);
        let names: Vec<&str> = names.lines().collect();
        assert_eq!(names.len(), 302, "{kind}");
        for name in ["out/grün", &format!("out/{long}/{long}")] {
            assert!(names.contains(&name), "{kind}: {name}");
        }
    }
    let bytes = archive("tar").await;
    assert_eq!(said("tar", &["-xOf", "-", "out/grün"], &bytes), "ü\n");
    let program = "import sys, io, zipfile\n\
        z = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))\n\
        assert z.testzip() is None\n\
        print(len(z.namelist()), z.read('out/grün').decode().strip(), oct(z.getinfo('out/grün').external_attr >> 16 & 0o777))";
    let told = said("python3", &["-c", program], &archive("zip").await);
    assert_eq!(told, "302 ü 0o750\n");
    for (query, count) in [
        ("match=out/gr*&match=none", 1),
        (&format!("path=out/{long}"), 1),
    ] {
        let some = server.get(&format!("/jobs/{job}/files.tar?{query}")).await;
        assert_eq!(
            said("tar", &["-tf", "-"], &some.body).lines().count(),
            count
        );
    }
    let wrong = server
        .get(&format!("/jobs/{job}/files.zip?match=/etc/*"))
        .await;
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (400, "invalid_query")
    );
}

#[tokio::test]
async fn a_form_brings_a_job_with_its_files() {
    let server = Server::start().await;
    let tree = made(
        "add('sub/run', content=b'#!/bin/sh\\necho ran\\n', mode=0o4755)\nadd('sub/link', tarfile.SYMTYPE, link='run')",
    );
    let zipped = said(
        "python3",
        &[
            "-c",
            "import io, sys, zipfile, base64\no = io.BytesIO()\nz = zipfile.ZipFile(o, 'w', zipfile.ZIP_DEFLATED)\nz.writestr('a/b', 'zipped')\nz.close()\nprint(base64.b64encode(o.getvalue()).decode(), end='')",
        ],
        b"",
    );
    let large = vec![b'x'; 3 << 20];
    let job = json!({
        "script": "wc -c < big; src/sub/link; cat packed/a/b; cat plain",
        "inputs": [
            {"path": "big", "part": "large"},
            {"path": "src", "part": "tree", "unpack": "tar"},
            {"path": "packed", "base64": zipped, "unpack": "zip"},
            {"path": "plain", "text": "plain\n"},
        ],
        "workspace": {"keep": "all"},
    });
    let parts: [(&str, &[u8]); 2] = [("large", &large), ("tree", &tree)];
    let reply = post_form(&server, "k", &job, &parts).await;
    assert_eq!(reply.status, 201, "{reply}");
    let made = reply.json();
    let job_id = id(&made);
    assert_eq!(
        server.stdout(&job_id).await,
        "3145728\nran\nzippedplain\n",
        "{made:#}"
    );
    let modes = server
        .get(&format!("/jobs/{job_id}/files?path=src/sub"))
        .await
        .json();
    assert_eq!(
        modes["files"][1]["mode"], "0755",
        "no set-user-ID: {modes:#}"
    );
    // The same form is the same job, and another file is not.
    let again = post_form(&server, "k", &job, &parts).await;
    assert_eq!(id(&again.json()), job_id);
    let other: [(&str, &[u8]); 2] = [("large", b"x"), ("tree", &tree)];
    let reused = post_form(&server, "k", &job, &other).await;
    assert_eq!(reused.code(), "idempotency_key_reused", "{reused}");
    // Nothing is kept of it for a rerun.
    let rerun = server
        .post(&format!("/jobs/{job_id}/rerun"), &json!({}))
        .await;
    assert_eq!(
        rerun.json()["errors"][0]["pointer"],
        "/inputs/0/part",
        "{rerun}"
    );

    for (job, parts, code) in [
        (
            json!({"inputs": [{"path": "a", "part": "a"}]}),
            vec![],
            "invalid_spec",
        ),
        (json!({}), vec![("a", &b"x"[..])], "invalid_request"),
        (
            json!({"inputs": [{"path": "a", "part": "a"}, {"path": "b", "part": "a"}]}),
            vec![("a", &b"x"[..])],
            "invalid_spec",
        ),
        (
            json!({"inputs": [{"path": "a", "part": "a", "unpack": "tar.gz"}]}),
            vec![("a", &b"no archive"[..])],
            "invalid_spec",
        ),
    ] {
        let mut job = job;
        job["command"] = json!(["true"]);
        let reply = post_form(&server, "other", &job, &parts).await;
        assert_eq!(reply.code(), code, "{job} {reply}");
    }
    let body = json!({"command": ["true"], "inputs": [{"path": "a", "part": "a"}]});
    let reply = server.post("/jobs", &body).await;
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/inputs/0/part",
        "{reply}"
    );
    let request = server
        .request(Method::POST, "/jobs")
        .header("content-type", FORM);
    let first = server.send(request.body(form(&[("x", b"{}")]))).await;
    assert_eq!(first.code(), "invalid_request", "{first}");
    let left = std::fs::read_dir(server.state_dir().join("workspaces/.incoming"));
    assert_eq!(left.unwrap().count(), 0);
    assert_eq!(
        server.get("/jobs").await.json()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_archive_that_leads_out_leaves_nothing_outside_and_no_job() {
    let server = Server::start().await;
    let outside = server.state_dir().join("workspaces/x");
    let bad = [
        ("up", "add('../../x', content=b'x')"),
        ("absolute", "add('/tmp/procession-x', content=b'x')"),
        ("link", "add('l', tarfile.SYMTYPE, link='../../x')"),
        (
            "through",
            "add('l', tarfile.SYMTYPE, link='.')\nadd('l/x', content=b'x')",
        ),
        ("hard", "add('h', tarfile.LNKTYPE, link='../../../token')"),
        ("device", "add('d', tarfile.CHRTYPE)"),
        ("pipe", "add('p', tarfile.FIFOTYPE)"),
    ];
    for (what, lines) in bad {
        let tar = made(lines);
        let job =
            json!({"command": ["true"], "inputs": [{"path": "a", "part": "t", "unpack": "tar"}]});
        let reply = post_form(&server, what, &job, &[("t", &tar)]).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_spec"),
            "{what} {reply}"
        );
        let error = &reply.json()["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/inputs/0"), &json!("invalid_archive")),
            "{reply}"
        );
        assert!(!outside.exists(), "{what}");
    }
    let held = id(&server
        .submit(&json!({"command": ["true"], "hold": true, "workspace": {"keep": "all"}}))
        .await);
    let put = async |path: &str, query: &str, body: Vec<u8>| {
        let request = server.request(Method::PUT, &format!("/jobs/{held}/files/{path}?{query}"));
        server.send(request.body(body)).await
    };
    for (what, lines) in bad {
        let reply = put("a", "unpack=tar", made(lines)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_archive"),
            "{what} {reply}"
        );
    }
    assert_eq!(listed(&server, &held, "").await, []);
    // A good one comes into what is there.
    assert_eq!(put("src/old", "", b"old".to_vec()).await.status, 201);
    let good = made("add('new', content=b'new')\nadd('d/e', content=b'deep')");
    assert_eq!(put("src", "unpack=tar", good).await.status, 204);
    for (path, expected) in [("src/old", "old"), ("src/new", "new"), ("src/d/e", "deep")] {
        assert_eq!(text(&server, &held, path).await, expected);
    }
    let reply = put("src", "unpack=rar", Vec::new()).await;
    assert_eq!(reply.code(), "invalid_query", "{reply}");
    eventually("no directory of a refused job is left", async || {
        let names = std::fs::read_dir(server.state_dir().join("workspaces")).unwrap();
        let own = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        let own: Vec<String> = own.filter(|name| !name.starts_with('.')).collect();
        (own == [held.as_str()]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_of_another_job_is_copied_at_once_or_when_that_one_has_ended() {
    let server = Server::start().await;
    let made = id(&server.run(&json!({"script": "mkdir out; echo made > out/a; ln -s /etc/passwd out/l; echo > rest", "artifacts": {"paths": ["out"]}})).await);
    let taking = |path: &str| json!({"script": "cat in/b", "inputs": [{"path": "in/b", "from": {"job": made, "path": path}}]});
    let job = server.run(&taking("out/a")).await;
    assert_eq!(server.stdout(&id(&job)).await, "made\n", "{job:#}");
    for (path, code) in [
        ("rest", "file_not_found"),
        ("out", "not_a_file"),
        ("out/l", "not_a_file"),
    ] {
        let reply = server.post("/jobs", &taking(path)).await;
        let error = &reply.json()["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/inputs/0/from"), &json!(code)),
            "{path} {reply}"
        );
    }
    let mut none = taking("out/a");
    none["inputs"][0]["from"]["job"] = json!("00000000-0000-7000-8000-000000000000");
    let reply = server.post("/jobs", &none).await;
    assert_eq!(reply.json()["errors"][0]["code"], "no_such_job", "{reply}");

    // One that it waits for has not made it yet.
    let maker = json!({"script": "read x; echo later > a", "stdin": {"mode": "open"}, "artifacts": {"paths": ["a"]}});
    let maker = id(&server.submit(&maker).await);
    let taker = json!({
        "script": "cat b", "depends_on": [{"job": maker, "on": "succeeded"}],
        "inputs": [{"path": "b", "from": {"job": maker, "path": "a"}}],
    });
    let taker = id(&server.submit(&taker).await);
    let input = server.request(Method::POST, &format!("/jobs/{maker}/stdin"));
    assert_eq!(server.send(input.body("go\n")).await.status, 204);
    let taken = server.finished(&taker).await;
    assert_eq!(server.stdout(&taker).await, "later\n", "{taken:#}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_a_job_that_fills_its_workspace_is_stopped() {
    let server = Server::builder();
    let server = server.args([
        "--max-upload-bytes",
        "200000",
        "--max-workspace-bytes",
        "1000000",
    ]);
    let server = server.start().await;
    // A megabyte of nothing is a kilobyte of gzip.
    let bomb = through(
        "gzip",
        &["-c"],
        &made("add('zeros', content=bytes(2000000))"),
    );
    assert!(bomb.len() < 10_000);
    let job =
        json!({"command": ["true"], "inputs": [{"path": "a", "part": "t", "unpack": "tar.gz"}]});
    let reply = post_form(&server, "bomb", &job, &[("t", &bomb)]).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large"),
        "{reply}"
    );
    let job = json!({"command": ["true"], "inputs": [{"path": "a", "part": "t"}]});
    let reply = post_form(&server, "large", &job, &[("t", &vec![0; 200_001])]).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large"),
        "{reply}"
    );

    let script = "head -c 900000 /dev/zero > most; echo there; exec sleep 600";
    let job = id(&server
        .submit(&json!({"script": script, "workspace": {"keep": "all"}}))
        .await);
    server.says(&job, "there").await;
    let request = server.request(Method::PUT, &format!("/jobs/{job}/files/more"));
    let reply = server.send(request.body(vec![0; 150_000])).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large"),
        "{reply}"
    );
    assert_eq!(file(&server, &job, "more").await.status, 404);
    server.stop(&job, "force").await;

    let script = "head -c 2000000 /dev/zero > much; exec sleep 600";
    let job = id(&server
        .submit(&json!({"script": script, "workspace": true}))
        .await);
    let ended = crate::harness::eventually_within(LONG * 2, "it is stopped", async || {
        let job = server.job(&job).await;
        job["finished_at"].is_string().then_some(job)
    })
    .await;
    assert_eq!(
        (&ended["state"], &ended["state_reason"]),
        (&json!("failed"), &json!("workspace_limit")),
        "{ended:#}"
    );
    is_gone(&server, &job).await;
    assert!(!workspace(&server, &job).exists());
}

#[tokio::test]
async fn nothing_new_comes_once_all_workspaces_are_full() {
    let server = Server::builder().args(["--max-workspaces-bytes", "1000000"]);
    let server = server.start().await;
    let body = json!({"script": "head -c 2000000 /dev/zero > much", "workspace": {"keep": "all"}});
    let full = id(&server.run(&body).await);
    let refused = eventually("it is seen that they are full", async || {
        let reply = server.post("/jobs", &body).await;
        (reply.status != 201).then_some(reply)
    })
    .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "no_room"),
        "{refused}"
    );
    // One without a workspace comes all the same.
    assert_eq!(
        server
            .post("/jobs", &json!({"command": ["true"]}))
            .await
            .status,
        201
    );
    let jobs = server.get("/jobs?page_size=1000").await.json();
    for job in jobs["jobs"].as_array().unwrap() {
        server.delete(&id(job), "purge&wait=30").await;
    }
    assert!(!workspace(&server, &full).exists());
    eventually("there is room", async || {
        let reply = server
            .post("/jobs", &json!({"command": ["true"], "workspace": true}))
            .await;
        (reply.status == 201).then_some(())
    })
    .await;
}

/// A number of a process that its status names, in KiB.
fn status(pid: nix::unistd::Pid, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().trim_start_matches(':').trim();
    number.trim_end_matches(" kB").parse().unwrap()
}

/// With `PROCESSION_FORM_MB=500`, as much as the service promises to pass on.
#[tokio::test]
async fn a_large_form_goes_through_a_job_and_back_with_little_memory() {
    let server = Server::start().await;
    let megabytes = amount("PROCESSION_FORM_MB", 48);
    let line = b"0123456789abcdef0123456789abcde\n";
    let large = line.repeat(usize::try_from(megabytes).unwrap() << 15);
    let job = json!({
        "script": "tac in.txt > out.txt", "artifacts": {"paths": ["out.txt"]},
        "inputs": [{"path": "in.txt", "part": "f"}],
    });
    server.run_script("true").await;
    let process = server.server_process().unwrap();
    // From here on the peak counts anew.
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    let before = status(process, "VmHWM");
    let made = post_form(&server, "k", &job, &[("f", &large)]).await;
    assert_eq!(made.status, 201, "{made}");
    let made = server.finished(&id(&made.json())).await;
    assert_eq!(made["state"], "succeeded", "{made:#}");
    let back = server
        .get(&format!("/jobs/{}/files/out.txt", id(&made)))
        .await;
    assert!(
        back.body == large,
        "{} bytes of {}",
        back.body.len(),
        large.len()
    );
    let grown = status(process, "VmHWM").saturating_sub(before);
    eprintln!("{megabytes} MB: the server had {grown} KiB more than {before} KiB");
    assert!(grown < 10 << 10, "{grown} KiB more than {before}");
}
