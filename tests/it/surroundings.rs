//! What a job finds when it starts: environment, descriptors, limits, signals, identity, input.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::faults::leftover_files;
use crate::harness::{Server, eventually, id, is_root, unique, unique_seconds};

/// What the service must not give to its jobs: signals ignored, a mask, priorities.
const UNTIDY: &str = "trap '' HUP INT PIPE USR1 USR2 TSTP; umask 0077";

// capabilities(7)
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;

/// Has this process, and so the service, this capability? In containers root lacks some.
fn may(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.unwrap().trim(), 16).unwrap();
    effective >> capability & 1 == 1
}

async fn text_of(server: &Server, body: Value) -> String {
    let job = server.run(&body).await;
    let text = server.text(&id(&job)).await;
    assert_eq!(job["exit"]["code"], 0, "{text}\n{job:#}");
    text
}

/// The environment of a job, as the kernel got it.
async fn environment(server: &Server, mut body: Value) -> BTreeMap<String, String> {
    body["command"] = json!(["/bin/cat", "/proc/self/environ"]);
    let text = text_of(server, body).await;
    let pairs = text
        .split_terminator('\0')
        .map(|pair| pair.split_once('=').unwrap());
    let mut environment: BTreeMap<String, String> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // Every job has it.
    let own = environment.remove("PROCESSION_JOB_ID").unwrap();
    assert_eq!(server.job(&own).await["id"], own);
    environment
}

#[tokio::test]
async fn the_environment_is_exactly_the_documented_one() {
    let server = Server::builder()
        .env("SECRET_OF_THE_SERVICE", "x")
        .env("LC_TIME", "C")
        .env("TZ", "Asia/Tokyo")
        .start()
        .await;
    let documented = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR",
    ];
    let inherited: BTreeMap<String, String> = server
        .environment()
        .into_iter()
        .filter(|(name, _)| documented.contains(&name.as_str()) || name.starts_with("LC_"))
        .collect();
    assert!(inherited.contains_key("LC_TIME") && inherited.contains_key("PATH"));
    assert_eq!(environment(&server, json!({})).await, inherited);

    let none = environment(&server, json!({"env_inherit": "none"})).await;
    assert_eq!(none, BTreeMap::new());

    let body = json!({"command": ["/usr/bin/env"], "env": {"PROCESSION_JOB_ID": "mine"}});
    let job = server.run(&body).await;
    let text = server.text(&id(&job)).await;
    assert!(text.contains("PROCESSION_JOB_ID=mine\n"), "{text}");

    let set = json!({
        "env_inherit": ["SECRET_OF_THE_SERVICE", "TZ", "NOT_SET"],
        "env": {"TZ": "UTC", "EMPTY": "", "Ümlaut": "a=b\nc"},
        "secret_env": {"KEY": "k"},
    });
    let expected = [
        ("SECRET_OF_THE_SERVICE", "x"),
        ("TZ", "UTC"),
        ("EMPTY", ""),
        ("Ümlaut", "a=b\nc"),
        ("KEY", "k"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(environment(&server, set).await, BTreeMap::from(expected));
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(files_below(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

fn has(path: &Path, needle: &str) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn a_secret_reaches_the_job_and_nobody_else() {
    let server = Server::start().await;
    let secret = unique();
    let body = json!({
        // It shows that it has the secret without showing it.
        "script": "echo ${#KEY}",
        "secret_env": {"KEY": secret},
    });
    let valid = server.post("/jobs/validate", &body).await;
    let created = server.post("/jobs", &body).await;
    let job = id(&created.json());
    let ended = server.get(&format!("/jobs/{job}?wait=30")).await;
    let listed = server.get("/jobs").await;
    let stopped = server.delete(&job, "").await;
    for reply in [&valid, &created, &ended, &listed, &stopped] {
        assert!(
            !String::from_utf8_lossy(&reply.body).contains(&secret),
            "{reply}"
        );
    }
    assert_eq!(
        ended.json()["spec"]["secret_env"],
        json!({"KEY": null}),
        "{ended}"
    );
    assert_eq!(server.text(&job).await, format!("{}\n", secret.len()));
    eventually("the job's own files are gone", async || {
        leftover_files(&server).is_empty().then_some(())
    })
    .await;
    for file in files_below(&server.state_dir()) {
        // A write-ahead log keeps old pages until it is written over; the clean end empties it.
        if !file.to_string_lossy().ends_with("-wal") {
            assert!(!has(&file, &secret), "in {}", file.display());
        }
    }
    assert!(!server.log().contains(&secret));
}

#[tokio::test]
async fn after_the_service_has_ended_no_secret_of_an_ended_job_is_on_disk() {
    let mut server = Server::start().await;
    let secret = unique();
    let job = json!({"command": ["true"], "secret_env": {"KEY": secret}});
    server.run(&job).await;
    let status = server.end(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    for file in files_below(&server.state_dir()) {
        assert!(!has(&file, &secret), "in {}", file.display());
    }
}

#[tokio::test]
async fn nothing_of_the_services_own_settings_leaks_into_a_job() {
    // Without the capability a nice value cannot be lowered again, not even to 0.
    let renice = if may(CAP_SYS_NICE) {
        "renice -n 5 -p $$ >/dev/null"
    } else {
        ":"
    };
    let server = Server::builder()
        .prelude(&format!(
            "{UNTIDY}; ulimit -S -c $(ulimit -H -c); echo 300 > /proc/$$/oom_score_adj; {renice}"
        ))
        .start()
        .await;
    let status = text_of(&server, json!({"command": ["cat", "/proc/self/status"]})).await;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    for signals in ["SigIgn:", "SigBlk:", "SigCgt:", "SigPnd:", "ShdPnd:"] {
        // glibc keeps 32 and 33 to itself: its posix_spawn(3) leaves them ignored and no other
        // program can change that; one with threads sets them up anew.
        let set = u64::from_str_radix(&field(signals), 16).unwrap() & !(0b11 << 31);
        assert_eq!(set, 0, "{signals} {status}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    let script = "umask; nice; cat /proc/self/oom_score_adj; ulimit -c";
    let text = text_of(&server, json!({"script": script})).await;
    assert_eq!(text, "0022\n0\n0\n0\n");
    let limits = text_of(&server, json!({"command": ["cat", "/proc/self/limits"]})).await;
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let line = |limits: &str, name: &str| -> String {
        limits
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    // The service raises its own; a job gets what the service was started with.
    for name in [
        "Max open files",
        "Max processes",
        "Max stack size",
        "Max file size",
    ] {
        assert_eq!(line(&limits, name), line(&own, name));
    }
}

#[tokio::test]
async fn what_the_spec_sets_is_set() {
    let server = Server::start().await;
    let script =
        "umask; nice; cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn; ulimit -f; ulimit -c
        grep -h -e Cpus_allowed_list -e NoNewPrivs /proc/self/status; pwd";
    let body = json!({
        "script": script,
        "umask": "0137",
        "nice": 7,
        "oom_score_adj": 500,
        "cpu_affinity": [0],
        "rlimits": {"nofile": {"soft": 64, "hard": 128}, "fsize": 1 << 20, "core": 0},
        "no_new_privs": false,
        "cwd": "/usr",
    });
    let text = text_of(&server, body).await;
    assert_eq!(
        text,
        "0137\n7\n500\n64\n128\n2048\n0\nNoNewPrivs:\t0\nCpus_allowed_list:\t0\n/usr\n"
    );
    let script = json!({"script": "echo $0-$1", "shell": ["/bin/bash", "-ec"]});
    let job = server.run(&script).await;
    assert_eq!(server.text(&id(&job)).await, "/bin/bash-\n");
}

#[tokio::test]
async fn more_than_the_service_has_is_a_failure_that_names_the_step() {
    let server = Server::start().await;
    for (stage, body) in [
        ("nice", json!({"command": ["true"], "nice": -5})),
        (
            "oom_score_adj",
            json!({"command": ["true"], "oom_score_adj": -500}),
        ),
        (
            "rlimits",
            json!({"command": ["true"], "rlimits": {"nofile": {"soft": 10, "hard": 4_000_000_000_u64}}}),
        ),
        (
            "cpu_affinity",
            json!({"command": ["true"], "cpu_affinity": [1023]}),
        ),
    ] {
        let job = server.run(&body).await;
        // Nobody gets more files than the kernel's limit, or CPU 1023.
        let allowed = match stage {
            "nice" => may(CAP_SYS_NICE),
            "oom_score_adj" => may(CAP_SYS_RESOURCE),
            _ => false,
        };
        if allowed {
            assert_eq!(job["state"], "succeeded", "{stage}: {job:#}");
        } else {
            assert_eq!(job["spawn_failure"]["stage"], stage, "{job:#}");
        }
    }
}

/// The descriptors of a process, and what they lead to.
fn descriptors(pid: &Value) -> BTreeMap<i32, String> {
    let directory = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(directory).unwrap().flatten();
    let described = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        // Some are closed while this looks.
        let target = fs::read_link(entry.path()).ok()?;
        Some((number, target.to_string_lossy().into_owned()))
    });
    described.collect()
}

/// The same of a job, once there are no others than 0, 1 and 2: while a program starts, its libraries are open.
async fn only_three(job: &Value) -> BTreeMap<i32, String> {
    let pid = &job["process"]["pid"];
    eventually("0, 1 and 2 alone are open", async || {
        let open = descriptors(pid);
        open.keys().eq(&[0, 1, 2]).then_some(open)
    })
    .await
}

#[tokio::test]
async fn only_standard_input_output_and_error_are_open_however_busy_the_service_is() {
    let server = Server::start().await;
    let _connections: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let seconds = unique_seconds();
    let body = json!({"command": ["sleep", seconds]});
    let jobs = join_all((0..50).map(|_| server.submit(&body))).await;
    for job in &jobs {
        assert_eq!(job["state"], "running", "{job:#}");
        let open = only_three(job).await;
        assert_eq!(open[&0], "/dev/null");
        assert!(
            open[&1].starts_with("pipe:") && open[&2].starts_with("pipe:"),
            "{open:?}"
        );
        assert_ne!(open[&1], open[&2]);
    }
    join_all(
        jobs.iter()
            .map(async |job| server.stop(&id(job), "force").await),
    )
    .await;
}

#[tokio::test]
async fn what_the_service_was_started_with_open_stays_with_the_supervisor() {
    let scratch = tempfile::tempdir().unwrap();
    let secret = scratch.path().join("secret");
    fs::write(&secret, "x").unwrap();
    // Without close-on-exec, as a careless parent leaves it; the last one for writing.
    let path = secret.display();
    let server = Server::builder()
        .prelude(&format!("exec 3<{path} 7<{path} 9>>{path}"))
        .start()
        .await;
    let numbers_that_lead_there = |pid: i32| {
        let open = descriptors(&json!(pid));
        let there = open
            .into_iter()
            .filter(|(_, target)| *target == path.to_string());
        there.map(|(number, _)| number).collect::<Vec<_>>()
    };
    let supervisor = server.supervisor().as_raw();
    assert_eq!(numbers_that_lead_there(supervisor), [3, 7, 9]);

    let seconds = unique_seconds();
    let pty = json!({"rows": 24, "cols": 80});
    for body in [
        json!({"command": ["sleep", seconds]}),
        json!({"command": ["sleep", seconds], "stdin": {"mode": "open"}}),
        json!({"command": ["sleep", seconds], "pty": pty}),
        json!({"command": ["sleep", seconds], "sandbox": {}}),
    ] {
        let job = server.submit(&body).await;
        assert_eq!(job["state"], "running", "{job:#}");
        only_three(&job).await;
    }
    // The server and the monitors.
    let others = server
        .marked()
        .into_iter()
        .filter(|process| process.pid != supervisor && !process.argv.contains(&seconds));
    let others: Vec<_> = others.collect();
    assert_eq!(others.len(), 5, "{others:?}");
    for process in others {
        let held = numbers_that_lead_there(process.pid);
        assert_eq!(held, [0; 0], "{process:?}");
    }
    // A job sees the same of itself: the fourth is the one that ls(1) reads the list by.
    let text = text_of(&server, json!({"command": ["ls", "/proc/self/fd"]})).await;
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn standard_input_is_the_given_bytes_and_then_the_end() {
    let server = Server::start().await;
    let mut random = vec![0; 700 << 10];
    rand::Rng::fill(&mut rand::rng(), random.as_mut_slice());
    let base64 = BASE64_STANDARD.encode(&random);
    let text = "zwei Wörter\n".repeat(50_000);
    let kinds: [(Value, &[u8]); 4] = [
        (json!({"mode": "data", "base64": base64}), &random),
        (json!({"mode": "data", "text": text}), text.as_bytes()),
        (json!({"mode": "data", "text": ""}), b""),
        (json!({"mode": "null"}), b""),
    ];
    for (stdin, expected) in kinds {
        let job = server
            .run(&json!({"command": ["cat"], "stdin": stdin}))
            .await;
        assert_eq!(job["exit"]["code"], 0, "{}", job["exit"]);
        let output = server.output(&id(&job)).await;
        assert!(
            output == expected,
            "{} bytes of {}",
            output.len(),
            expected.len()
        );
    }
    // Input that nobody reads is no failure.
    let unread = json!({"command": ["true"], "stdin": {"mode": "data", "text": text}});
    assert_eq!(server.run(&unread).await["state"], "succeeded");
}

#[tokio::test]
async fn a_job_runs_as_the_user_it_names_or_is_refused() {
    let server = Server::start().await;
    let script = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; pwd; touch /proc/self/comm";
    let body = json!({"script": script, "user": "nobody"});
    if !is_root() {
        for field in [
            json!({"user": "nobody"}),
            json!({"group": 65534}),
            json!({"supplementary_groups": [1]}),
        ] {
            let name = field.as_object().unwrap().keys().next().unwrap().clone();
            let mut body = json!({"command": ["true"]});
            body[&name] = field[&name].clone();
            let reply = server.post("/jobs", &body).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (403, "privilege_required"),
                "{reply}"
            );
            assert_eq!(
                reply.json()["errors"][0]["pointer"],
                format!("/{name}"),
                "{reply}"
            );
        }
        return;
    }
    let text = text_of(&server, body).await;
    assert_eq!(text, "65534\n65534\n65534\n/nonexistent nobody nobody\n/\n");
    let body = json!({
        "script": "id -u; id -g; id -G", "cwd": "/",
        "user": 12345, "group": 23456, "supplementary_groups": [1, "daemon", 34567],
    });
    assert_eq!(
        text_of(&server, body).await,
        "12345\n23456\n23456 1 34567\n"
    );
    for body in [
        json!({"command": ["id"], "user": unique()}),
        json!({"command": ["id"], "group": unique()}),
    ] {
        let reply = server.post("/jobs", &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "no_such_user"),
            "{reply}"
        );
    }
    let careful = Server::builder().args(["--deny-root-jobs"]).start().await;
    let reply = careful.post("/jobs", &json!({"command": ["true"]})).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (403, "privilege_required"),
        "{reply}"
    );
}

/// What processes hand on by fork(2) and execve(2), as a job can see it.
const HERITAGE: &str = r#"
    echo "policy $(chrt -p $$ | sed 's/^pid [0-9]*//')"
    echo "io $(ionice -p $$)"
    echo "cpus $(taskset -p $$ | sed 's/^pid [0-9]*//')"
    echo "slack $(cat /proc/self/timerslack_ns)"
    echo "personality $(cat /proc/$$/personality)"
    echo "nice $(nice) umask $(umask) oom $(cat /proc/self/oom_score_adj)"
    grep -E '^(Cap(Inh|Prm|Eff|Amb)|Sig(Blk|Ign|Cgt)|Seccomp|THP_enabled)' /proc/self/status
    grep -E '^(policy|prio|se.slice)' /proc/self/sched
    tr '\0' '\n' < /proc/self/environ | grep -v -E '^(LC_PROCESSION_TEST|PROCESSION_JOB_ID|PWD|_)='
    ls /proc/self/fd | wc -l
    ulimit -c
"#;

/// A service that has been given everything that should stay with it.
const ODD: &str = r#"
    trap '' HUP INT PIPE USR1 USR2 TSTP; umask 0077
    can() { "$@" true 2> /dev/null; }
    can setpriv --inh-caps +net_raw --ambient-caps +net_raw && set -- setpriv --inh-caps +net_raw --ambient-caps +net_raw "$@"
    can setarch -R && set -- setarch -R "$@"
    can taskset 1 && set -- taskset 1 "$@"
    can ionice -c 3 && set -- ionice -c 3 "$@"
    can chrt -f 10 && set -- chrt -f 10 "$@"
    can choom -n -500 -- && set -- choom -n -500 -- "$@"
"#;

#[tokio::test]
async fn a_job_has_nothing_of_an_odd_service() {
    let plain = Server::start().await;
    let odd = Server::builder().prelude(ODD).start().await;
    for more in [
        json!({}),
        json!({"sandbox": {}}),
        json!({"oom_score_adj": 500}),
    ] {
        let mut seen = Vec::new();
        for server in [&plain, &odd] {
            let mut body = json!({"script": HERITAGE});
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            seen.push(text_of(server, body).await);
        }
        // Inheritable capabilities alone give a program nothing.
        assert_eq!(seen[0], seen[1], "{more}");
        assert!(seen[0].contains("SCHED_OTHER"), "{}", seen[0]);
        assert_eq!(slice(&seen[0]), slice(&own_schedule()), "{}", seen[0]);
    }
}

fn own_schedule() -> String {
    std::fs::read_to_string("/proc/self/sched").unwrap_or_default()
}

/// How long a process may run while others wait, of kernels that say it.
fn slice(schedule: &str) -> Option<u64> {
    let line = schedule.lines().find(|line| line.starts_with("se.slice"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn the_service_has_a_shorter_slice_than_its_jobs() {
    let Some(usual) = slice(&own_schedule()) else {
        eprintln!("skipped: this kernel has one slice for all");
        return;
    };
    let server = Server::start().await;
    let job = server.submit(&json!({"command": ["sleep", "60"]})).await;
    let of = |pid: i64| {
        let schedule = std::fs::read_to_string(format!("/proc/{pid}/sched"));
        slice(&schedule.expect("a process of the service lives"))
    };
    assert_eq!(of(job["process"]["pid"].as_i64().unwrap()), Some(usual));
    let monitor = server.monitors()[&id(&job)];
    for role in [
        monitor,
        server.supervisor(),
        server.server_process().unwrap(),
    ] {
        let slice = of(role.as_raw().into());
        assert!(slice < Some(usual), "{role}: {slice:?}, jobs: {usual}");
    }
}

#[tokio::test]
async fn without_root_jobs_no_group_opens_what_is_roots() {
    if !is_root() {
        eprintln!("skipped: only a service of root can choose groups");
        return;
    }
    let careful = Server::builder().args(["--deny-root-jobs"]).start().await;
    for (fields, pointer) in [
        (json!({"user": "nobody", "group": 0}), "/group"),
        (json!({"user": "nobody", "group": "shadow"}), "/group"),
        (
            json!({"user": "nobody", "supplementary_groups": ["nogroup", "shadow"]}),
            "/supplementary_groups/1",
        ),
        (
            json!({"user": "nobody", "supplementary_groups": [0]}),
            "/supplementary_groups/0",
        ),
        (json!({"user": "sync", "group": 0}), "/group"),
    ] {
        let mut body = fields.clone();
        body["command"] = json!(["cat", "/etc/shadow"]);
        let reply = careful.post("/jobs", &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "privilege_required"),
            "{fields}: {reply}"
        );
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{fields}");
    }
    let own = json!({
        "command": ["id", "-Gn"], "user": "nobody", "group": "nogroup", "supplementary_groups": ["nogroup"],
    });
    assert_eq!(text_of(&careful, own).await, "nogroup\n");
}
