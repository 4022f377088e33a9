//! The sandbox of a job: what it closes, what it leaves alone, and what becomes of it where the kernel lacks it.

use std::fs;
use std::path::Path;

use nix::libc;
use serde_json::{Value, json};

use crate::harness::{Builder, Server, id, is_root, kill_now, unique_seconds};

/// Landlock's version here, as the service tells it. A kernel without Landlock leaves a part of each claim;
/// that the part is reported as missing is asserted then.
async fn landlock(server: &Server) -> Option<u64> {
    server.get("/info").await.json()["sandbox"]["landlock_abi"].as_u64()
}

async fn in_sandbox(server: &Server, script: &str, sandbox: Value) -> (Value, String) {
    let job = server
        .run(&json!({"script": script, "sandbox": sandbox}))
        .await;
    let text = server.text(&id(&job)).await;
    (job, text)
}

/// Tries each system call and prints its name and the errno, or `fine`.
fn calling(calls: &[(&str, libc::c_long, &[u64])]) -> String {
    use std::fmt::Write;
    let mut script = "import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(a) for a in arguments])
    print(name, 'fine' if result >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
"
    .to_owned();
    for (name, number, arguments) in calls {
        let arguments: Vec<String> = arguments.iter().map(u64::to_string).collect();
        writeln!(script, "call('{name}', {number}, {})", arguments.join(", ")).unwrap();
    }
    script
}

#[tokio::test]
async fn a_job_of_the_services_own_user_cannot_open_the_state_directory() {
    let server = Server::start().await;
    let (state, scratch) = (server.state_dir(), server.scratch());
    fs::write(scratch.join("readable"), "yes").unwrap();
    // What belongs to a job that has ended may go while they are looked for.
    let script = format!(
        "cd {work}; for file in $(find {state} -type f 2>/dev/null); do
            case $file in {state}/token) echo found;; esac
            (cat $file) >/dev/null 2>&1 && case $file in {work}/*) ;; *) echo read $file;; esac
            (: >>$file) 2>/dev/null && case $file in {work}/*) ;; *) echo written $file;; esac
        done
        (: >{state}/new) 2>/dev/null && echo made
        ln {state}/token {work}/token 2>/dev/null && echo linked
        mv {state} {state}.away 2>/dev/null && echo moved
        rm -f {state}/token 2>/dev/null && echo removed
        pwd; echo text >mine && cat mine; cat {scratch}/readable; echo changed >{scratch}/readable; ls / >/dev/null && echo listed",
        state = state.display(),
        work = state.join("work").display(),
        scratch = scratch.display(),
    );
    // Without a sandbox it can.
    let token = format!("cat {}", state.join("token").display());
    let (job, text) = in_sandbox(&server, &token, json!(null)).await;
    assert_eq!(text.trim(), server.token());
    assert_eq!(job["process"]["sandbox"], json!(null));

    let abi = landlock(&server).await;
    let (job, text) = in_sandbox(&server, &token, json!({})).await;
    assert_eq!(job["process"]["sandbox"]["landlock_abi"].as_u64(), abi);
    if abi.is_none() {
        assert_eq!(job["process"]["sandbox"]["missing"][0], "landlock");
        return;
    }
    assert_eq!(job["exit"]["code"], 1, "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    let (_, text) = in_sandbox(&server, &script, json!({})).await;
    let work = state.join("work");
    assert_eq!(
        text,
        format!("found\n{}\ntext\nyeslisted\n", work.display()),
        "of {script}"
    );
    assert_eq!(
        fs::read_to_string(scratch.join("readable")).unwrap(),
        "changed\n"
    );
    assert!(state.join("token").exists());
}

#[tokio::test]
async fn a_job_in_a_sandbox_can_neither_signal_nor_look_into_the_service() {
    let server = Server::start().await;
    let Some(abi) = landlock(&server).await else {
        let (job, _) = in_sandbox(&server, "true", json!({})).await;
        assert_eq!(job["process"]["sandbox"]["missing"][0], "landlock");
        return;
    };
    let info = server.get("/info").await.json();
    let roles = format!("{} {} $PPID", info["supervisor_pid"], info["server_pid"]);
    // CAP_PERFMON reads the memory maps of everybody (capabilities(7)), and root has it.
    let files = if is_root() {
        "mem fd/0 root/etc/passwd"
    } else {
        "mem fd/0 root/etc/passwd environ maps"
    };
    let seconds = unique_seconds();
    let neighbour = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let script = format!(
        "for pid in {roles} {}; do
            kill -0 $pid 2>/dev/null && echo signalled $pid
            for file in {files}; do
                (head -c 1 /proc/$pid/$file) >/dev/null 2>&1 && echo read /proc/$pid/$file
            done
        done
        sleep 100 & kill -0 $! && kill -KILL $! && cat /proc/self/environ >/dev/null && echo its own",
        neighbour["process"]["pid"]
    );
    let (_, text) = in_sandbox(&server, &script, json!({})).await;
    let expected = if abi >= 6 { "its own\n" } else { "" };
    assert!(text.ends_with(expected) && !text.contains("read"), "{text}");
    if abi >= 6 {
        assert_eq!(text, expected);
    }
    let (_, free) = in_sandbox(&server, &script, json!(null)).await;
    assert!(
        free.contains("signalled") && free.contains("read"),
        "{free}"
    );
    server.stop(&id(&neighbour), "force").await;
}

#[tokio::test]
async fn on_the_unix_socket_a_job_in_a_sandbox_is_a_stranger() {
    let server = Server::start().await;
    let socket = server.state_dir().join("procession.sock");
    let ask = |header: &str| {
        format!(
            "import socket
s = socket.socket(socket.AF_UNIX); s.connect('{}')
s.sendall(b'GET /jobs HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n{header}\\r\\n')
print(s.makefile().readline().split()[1])",
            socket.display()
        )
    };
    let run = async |script: String, sandbox: Value| {
        let body = json!({"command": ["python3", "-c", script], "sandbox": sandbox});
        let job = server.run(&body).await;
        server.text(&id(&job)).await
    };
    assert_eq!(run(ask(""), json!(null)).await, "200\n");
    assert_eq!(run(ask(""), json!({})).await, "401\n");
    assert_eq!(
        run(ask("Authorization: Bearer x\\r\\n"), json!({})).await,
        "401\n"
    );
    let token = format!("Authorization: Bearer {}\\r\\n", server.token());
    assert_eq!(run(ask(&token), json!({})).await, "200\n");
}

#[tokio::test]
async fn paths_bound_what_a_job_changes_and_reads() {
    let server = Server::start().await;
    if landlock(&server).await.is_none() {
        let sandbox = json!({"writable_paths": [], "require": true});
        let reply = server
            .post("/jobs", &json!({"command": ["true"], "sandbox": sandbox}))
            .await;
        assert_eq!(reply.code(), "sandbox_unavailable");
        return;
    }
    let scratch = server.scratch();
    for name in ["in", "out", "other"] {
        fs::create_dir(scratch.join(name)).unwrap();
        fs::write(scratch.join(name).join("file"), name).unwrap();
    }
    let path = |name: &str| scratch.join(name).display().to_string();
    let script = format!(
        "cd {}; for name in in out other; do
            cat $name/file 2>/dev/null && echo; (echo new >$name/new) 2>/dev/null && echo wrote $name
            (echo changed >>$name/file) 2>/dev/null && echo changed $name
            mv $name/file $name/moved 2>/dev/null && echo moved $name
        done; echo gone >/dev/null",
        scratch.display()
    );
    let nowhere = in_sandbox(&server, &script, json!({"writable_paths": []})).await;
    assert_eq!(nowhere.1, "in\nout\nother\n");
    let one = in_sandbox(&server, &script, json!({"writable_paths": [path("out")]})).await;
    assert_eq!(one.1, "in\nout\nwrote out\nchanged out\nmoved out\nother\n");
    fs::rename(scratch.join("out/moved"), scratch.join("out/file")).unwrap();

    let system = ["/usr", "/bin", "/lib", "/lib64", "/etc"];
    let mut readable: Vec<String> = system
        .iter()
        .filter(|path| Path::new(path).exists())
        .map(ToString::to_string)
        .collect();
    readable.push(path("in"));
    let both = json!({"readable_paths": readable, "writable_paths": [path("out")]});
    let (_, text) = in_sandbox(&server, &script, both).await;
    assert_eq!(
        text,
        "in\noutchanged\n\nwrote out\nchanged out\nmoved out\n"
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_had_is_a_failure_that_names_it() {
    let server = Server::start().await;
    if landlock(&server).await.is_none() {
        return;
    }
    let token = server.state_dir().join("token").display().to_string();
    for (path, errno) in [("/no/such/path", libc::ENOENT), (&token, libc::EACCES)] {
        let (job, _) = in_sandbox(&server, "true", json!({"writable_paths": [path]})).await;
        let failure = &job["spawn_failure"];
        assert_eq!(job["state"], "failed", "{job:#}");
        assert_eq!(failure["stage"], "sandbox", "{failure}");
        assert_eq!(failure["errno"], errno, "{failure}");
        assert!(
            failure["message"].as_str().unwrap().contains(path),
            "{failure}"
        );
    }
    let sandbox = json!({"readable_paths": ["/etc"]});
    let (job, _) = in_sandbox(&server, "true", sandbox).await;
    assert_eq!(job["spawn_failure"]["stage"], "exec", "{job:#}");
    assert_eq!(job["spawn_failure"]["errno"], libc::EACCES, "{job:#}");
}

#[tokio::test]
async fn calls_that_ordinary_programs_do_not_make_fail() {
    let server = Server::start().await;
    let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let mut calls: Vec<(&str, libc::c_long, &[u64])> = vec![
        ("mount", libc::SYS_mount, &[0; 5]),
        ("umount2", libc::SYS_umount2, &[0; 2]),
        ("pivot_root", libc::SYS_pivot_root, &[0; 2]),
        ("open_tree", libc::SYS_open_tree, &[0; 3]),
        ("move_mount", libc::SYS_move_mount, &[0; 5]),
        ("fsopen", libc::SYS_fsopen, &[0; 2]),
        ("mount_setattr", libc::SYS_mount_setattr, &[0; 5]),
        ("setns", libc::SYS_setns, &[0; 2]),
        ("finit_module", libc::SYS_finit_module, &[0; 3]),
        ("kexec_load", libc::SYS_kexec_load, &[0; 4]),
        ("bpf", libc::SYS_bpf, &[0; 3]),
        ("perf_event_open", libc::SYS_perf_event_open, &[0; 5]),
        ("userfaultfd", libc::SYS_userfaultfd, &[0; 1]),
        ("keyctl", libc::SYS_keyctl, &[0; 5]),
        ("add_key", libc::SYS_add_key, &[0; 5]),
        ("swapon", libc::SYS_swapon, &[0; 2]),
        ("reboot", libc::SYS_reboot, &[0; 4]),
    ];
    let unshare = [new_user];
    // The kernel reads the lower half of this argument only.
    let tiocsti = [0, libc::TIOCSTI | 1 << 32, 0];
    calls.push(("unshare", libc::SYS_unshare, &unshare));
    calls.push(("ioctl", libc::SYS_ioctl, &tiocsti));
    let clone = [
        new_user | u64::from(libc::SIGCHLD.unsigned_abs()),
        0,
        0,
        0,
        0,
    ];
    calls.push(("clone", libc::SYS_clone, &clone));
    let refused: String = calls
        .iter()
        .map(|(name, ..)| format!("{name} EPERM\n"))
        .collect();
    calls.push(("clone3", libc::SYS_clone3, &[0; 2]));
    let mut expected = refused + "clone3 ENOSYS\n";
    if cfg!(target_arch = "x86_64") {
        calls.push(("x32", libc::SYS_getpid | 0x4000_0000, &[]));
        expected += "x32 ENOSYS\n";
    }
    let nothing = calling(&calls)
        + "import threading, subprocess
t = threading.Thread(target=lambda: print('a thread', flush=True)); t.start(); t.join()
subprocess.run(['echo', 'a process'])";
    let body = json!({"command": ["python3", "-c", nothing], "sandbox": {}});
    let job = server.run(&body).await;
    assert_eq!(job["process"]["sandbox"]["seccomp"], true, "{job:#}");
    let text = server.text(&id(&job)).await;
    assert_eq!(text, expected + "a thread\na process\n");
    let status = json!({"command": ["cat", "/proc/self/status"], "sandbox": {}});
    let job = server.run(&status).await;
    let status = server.text(&id(&job)).await;
    assert!(
        status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"),
        "{status}"
    );
}

#[tokio::test]
async fn tracing_stays_within_the_job() {
    let server = Server::start().await;
    let ptrace = |pid: &str| {
        format!(
            "import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    signal.pause()
attached = libc.ptrace(16, {pid}, 0, 0)
print('attached' if attached == 0 else os.strerror(ctypes.get_errno()), flush=True)
os.kill(child, signal.SIGKILL)"
        )
    };
    let run = async |script: String, sandbox: Value| {
        let body = json!({"command": ["python3", "-c", script], "sandbox": sandbox});
        let job = server.run(&body).await;
        server.text(&id(&job)).await
    };
    let denied = "Operation not permitted\n";
    if landlock(&server).await.is_some() {
        assert_eq!(run(ptrace("child"), json!({})).await, "attached\n");
        assert_eq!(run(ptrace("os.getppid()"), json!({})).await, denied);
    }
    // Without Landlock nothing else would keep it within.
    let filter = json!({"landlock": "off"});
    assert_eq!(run(ptrace("child"), filter).await, denied);
}

#[tokio::test]
async fn a_terminal_works_in_a_sandbox() {
    let server = Server::start().await;
    let body = json!({
        "script": "test -t 0 && stty size && echo to the terminal >/dev/tty",
        "pty": {"rows": 30, "cols": 90},
        "sandbox": {"writable_paths": []},
    });
    let job = server.run(&body).await;
    let text = server.text(&id(&job)).await;
    assert_eq!(text, "30 90\r\nto the terminal\r\n", "{job:#}");
}

#[tokio::test]
async fn what_the_service_insists_on_no_job_can_lower() {
    let server = Server::builder().args(["--sandbox=require"]).start().await;
    let info = server.get("/info").await.json();
    assert_eq!(info["sandbox"]["default"], "require");
    let post = async |body: Value| {
        let reply = server.post("/jobs/validate", &body).await;
        let pointer = reply.json()["errors"][0]["pointer"].clone();
        (reply.status, reply.code(), pointer)
    };
    for (pointer, body) in [
        ("/sandbox/seccomp", json!({"sandbox": {"seccomp": "off"}})),
        ("/sandbox/landlock", json!({"sandbox": {"landlock": "off"}})),
        ("/no_new_privs", json!({"no_new_privs": false})),
    ] {
        let mut body = body;
        body["command"] = json!(["true"]);
        let expected = (403, "sandbox_required".to_owned(), json!(pointer));
        assert_eq!(post(body).await, expected);
    }
    if info["sandbox"]["landlock_abi"].as_u64() >= Some(6) {
        let job = server.run(&json!({"command": ["true"]})).await;
        assert_eq!(job["process"]["sandbox"]["missing"], json!([]), "{job:#}");
        assert_eq!(job["spec"]["sandbox"], json!(null), "{job:#}");
    } else {
        let reply = server.post("/jobs", &json!({"command": ["true"]})).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "sandbox_unavailable")
        );
    }
}

#[tokio::test]
async fn by_default_a_job_can_do_without_but_says_so() {
    let server = Server::builder().args(["--sandbox=default"]).start().await;
    let job = server.run(&json!({"command": ["true"]})).await;
    assert_eq!(job["process"]["sandbox"]["seccomp"], true, "{job:#}");
    let reply = server
        .post(
            "/jobs",
            &json!({"command": ["true"], "no_new_privs": false}),
        )
        .await;
    assert_eq!(reply.code(), "sandbox_unavailable", "{reply}");
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/no_new_privs",
        "{reply}"
    );
    let off = json!({"landlock": "off", "seccomp": "off"});
    let body = json!({"command": ["true"], "no_new_privs": false, "sandbox": off});
    let job = server.run(&body).await;
    assert_eq!(job["process"]["sandbox"], json!(null), "{job:#}");
    let body = json!({"command": ["true"], "no_new_privs": false, "sandbox": {}});
    let reply = server.post("/jobs", &body).await;
    assert_eq!(reply.code(), "invalid_spec", "{reply}");
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/no_new_privs",
        "{reply}"
    );
}

/// Starts the service in a process whose kernel has, as far as it can see, neither of the two.
fn old_kernel() -> Builder {
    let python = format!(
        "import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
op = lambda code, jt, jf, k: struct.pack('HBBI', code, jt, jf, k)
program = ctypes.create_string_buffer(b''.join([
    op(0x20, 0, 0, 0), op(0x15, 1, 0, {}), op(0x15, 0, 1, {}), op(0x06, 0, 0, 0x50000 | 38), op(0x06, 0, 0, 0x7fff0000)]))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('program', ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(5, ctypes.addressof(program)))) == 0
os.execv(sys.argv[1], sys.argv[1:])",
        libc::SYS_landlock_create_ruleset,
        libc::SYS_seccomp,
    );
    Server::builder().prelude(&format!("exec python3 -c \"{python}\" \"$@\""))
}

#[tokio::test]
async fn what_the_kernel_lacks_is_reported_or_a_refusal() {
    let server = old_kernel().start().await;
    let info = server.get("/info").await.json();
    let none = json!({"default": "off", "landlock_abi": null, "seccomp": false});
    assert_eq!(info["sandbox"], none);
    let job = server
        .run(&json!({"command": ["true"], "sandbox": {}}))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let lacking =
        json!({"landlock_abi": null, "seccomp": false, "missing": ["landlock", "seccomp"]});
    assert_eq!(job["process"]["sandbox"], lacking);
    let body = json!({"command": ["true"], "sandbox": {"require": true}});
    let reply = server.post("/jobs", &body).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (422, "sandbox_unavailable")
    );
    assert_eq!(reply.json()["errors"][0]["pointer"], "/sandbox", "{reply}");
}

#[tokio::test]
async fn a_job_in_a_sandbox_outlives_the_server_and_stays_in_it() {
    let server = Server::start().await;
    let go = server.scratch().join("go");
    let script = format!(
        "echo ready; while [ ! -e {} ]; do sleep 0.05; done; cat {} 2>/dev/null || echo closed",
        go.display(),
        server.state_dir().join("token").display()
    );
    let job = server
        .submit(&json!({"script": script, "sandbox": {}}))
        .await;
    let job = id(&job);
    server.says(&job, "ready").await;
    let before = server.job(&job).await["process"].clone();
    let client = server.persistent();
    kill_now(server.server_process().unwrap());
    let after = client.get(&format!("/jobs/{job}")).await.json();
    assert_eq!(after["process"], before);
    fs::write(go, "").unwrap();
    let ended = client.finished(&job).await;
    assert_eq!(ended["process"]["sandbox"], before["sandbox"]);
    if before["sandbox"]["landlock_abi"].is_u64() {
        assert!(server.text(&job).await.ends_with("closed\n"));
    }
}

/// What a job of another user is kept from without any sandbox; only root can have such jobs.
#[tokio::test]
async fn a_job_of_another_user_reaches_nothing_of_the_service() {
    if !is_root() {
        return;
    }
    let server = Server::builder()
        .env("SECRET_OF_THE_SERVICE", "x")
        .start()
        .await;
    server.scratch();
    let info = server.get("/info").await.json();
    let state = server.state_dir();
    let script = format!(
        "cat {state}/token; ls {state}; cat {state}/procession.db
        for pid in {} {} $PPID; do
            kill -0 $pid 2>/dev/null && echo signalled $pid
            cat /proc/$pid/environ 2>/dev/null && echo read the environment
            ls /proc/$pid/fd 2>/dev/null && echo saw descriptors
        done
        env | grep SECRET && echo has the environment
        ls /proc/self/fd | tr '\\n' ' '; grep NoNewPrivs /proc/self/status",
        info["supervisor_pid"],
        info["server_pid"],
        state = state.display(),
    );
    for sandbox in [json!(null), json!({})] {
        let body = json!({"script": script, "user": "nobody", "sandbox": sandbox, "output": {"merge_stderr": true}});
        let job = server.run(&body).await;
        let text = server.text(&id(&job)).await;
        // The last descriptor is the one that ls(1) reads the list from.
        let (refusals, rest) = text.split_once("0 1 2 3 ").expect(&text);
        assert_eq!(rest, "NoNewPrivs:\t1\n", "{text}");
        assert_eq!(refusals.matches("Permission denied").count(), 3, "{text}");
        for wrong in ["signalled", "read the", "saw", "has the"] {
            assert!(!text.contains(wrong), "{text}");
        }
    }
}

/// What comes of each attempt on the network: a name, and `fine` or the errno.
fn attempts(port: u16, other: u16) -> String {
    format!(
        "import errno, socket
def attempt(name, what):
    try: what(); print(name, 'fine', flush=True)
    except socket.gaierror: print(name, 'unresolved', flush=True)
    except OSError as error: print(name, errno.errorcode[error.errno], flush=True)
attempt('connect', lambda: socket.create_connection(('127.0.0.1', {port})))
attempt('elsewhere', lambda: socket.create_connection(('127.0.0.1', {other})))
attempt('bind', lambda: socket.socket().bind(('127.0.0.1', {other})))
attempt('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9)))
one, two = socket.socketpair()
attempt('unix', lambda: one.send(b'x'))
"
    )
}

#[tokio::test]
async fn a_job_without_a_network_has_unix_sockets_and_one_with_ports_has_those() {
    let server = Server::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let another = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = another.local_addr().unwrap().port();
    let run = async |network: Value| {
        let body = json!({
            "command": ["python3", "-c", attempts(port, other)], "sandbox": {"network": network},
        });
        let job = server.run(&body).await;
        let said = server.text(&id(&job)).await;
        (job, said)
    };
    let (_, said) = run(json!("default")).await;
    let free = "connect fine\nelsewhere fine\nbind EADDRINUSE\nudp fine\nunix fine\n";
    assert_eq!(said, free);
    let (job, said) = run(json!("off")).await;
    let off = "connect EPERM\nelsewhere EPERM\nbind EPERM\nudp EPERM\nunix fine\n";
    assert_eq!(said, off, "{job:#}");
    let has_net = landlock(&server).await.is_some_and(|abi| abi >= 4);
    let (job, said) = run(json!({"connect_ports": [port]})).await;
    let missing = job["process"]["sandbox"]["missing"].to_string();
    assert_eq!(
        missing.contains("landlock_net"),
        !has_net && landlock(&server).await.is_some()
    );
    let bounded = "connect fine\nelsewhere EACCES\nbind EACCES\nudp fine\nunix fine\n";
    assert_eq!(said, if has_net { bounded } else { free }, "{job:#}");
    for (sandbox, pointer) in [
        (json!({"network": "on"}), "/sandbox/network"),
        (
            json!({"network": {"connect_ports": [0]}}),
            "/sandbox/network/connect_ports/0",
        ),
        (
            json!({"network": "off", "seccomp": "off"}),
            "/sandbox/network",
        ),
        (
            json!({"network": {}, "landlock": "off"}),
            "/sandbox/network",
        ),
    ] {
        let body = json!({"command": ["true"], "sandbox": sandbox});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{reply}");
    }
}

#[tokio::test]
async fn reads_and_writes_have_the_class_that_was_asked_for() {
    let server = Server::start().await;
    let run = async |priority: Value| {
        let ask = "import ctypes, platform\n\
            number = {'x86_64': 252, 'aarch64': 31}[platform.machine()]\n\
            print(ctypes.CDLL(None).syscall(number, 1, 0))";
        let body = json!({"command": ["python3", "-c", ask], "io_priority": priority});
        server.post("/jobs?wait=30", &body).await
    };
    for (priority, number) in [
        (json!({"class": "idle"}), 3 << 13 | 4),
        (json!({"class": "best_effort", "level": 7}), 2 << 13 | 7),
    ] {
        let job = run(priority).await.json();
        assert_eq!(
            server.stdout(&id(&job)).await,
            format!("{number}\n"),
            "{job:#}"
        );
    }
    let reply = run(json!({"class": "realtime"})).await;
    if is_root() {
        // Root of a container may not be allowed to, and is told so.
        let job = reply.json();
        let stage = &job["spawn_failure"]["stage"];
        assert!(
            job["state"] == "succeeded" || stage == "io_priority",
            "{job:#}"
        );
    } else {
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "privilege_required"),
            "{reply}"
        );
        assert_eq!(
            reply.json()["errors"][0]["pointer"],
            "/io_priority/class",
            "{reply}"
        );
    }
    let wrong = run(json!({"class": "best_effort", "level": 8})).await;
    assert_eq!(
        wrong.json()["errors"][0]["pointer"],
        "/io_priority/level",
        "{wrong}"
    );
}
