"""Runs inside the virtual machine: procession.service under a real systemd with a full cgroup v2.

Every check is a function whose name is the claim. The last line printed is the result that
tests/vm/run.sh reads.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request

BASE = "http://127.0.0.1:8080"
STATE = "/var/lib/procession"
UNIT = "procession.service"
# Emulation is slow: every wait is bounded by this, and none is this long when things go right.
LONG = 60
VERSION = int(subprocess.check_output(["systemctl", "--version"], text=True).split()[1])


def sh(command, check=True):
    done = subprocess.run(command, shell=True, text=True, capture_output=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def eventually(what, condition):
    end = time.monotonic() + LONG
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"never came true: {what}")
        time.sleep(0.1)


def api(method, path, body=None, expect=(200, 201, 202)):
    request = urllib.request.Request(BASE + path, method=method)
    with open(f"{STATE}/token") as token:
        request.add_header("Authorization", "Bearer " + token.read().strip())
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, data, timeout=LONG + 10) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    assert status in expect, f"{method} {path}: {status} {text}"
    return json.loads(text) if text else None


def submit(script, **fields):
    return api("POST", "/jobs", {"script": script, **fields})


def job(id):
    return api("GET", f"/jobs/{id}")


def ended(id):
    answer = api("GET", f"/jobs/{id}?wait={LONG}")
    assert answer["finished_at"], answer
    return answer


def output(id):
    request = urllib.request.Request(f"{BASE}/jobs/{id}/output/stdout")
    with open(f"{STATE}/token") as token:
        request.add_header("Authorization", "Bearer " + token.read().strip())
    with urllib.request.urlopen(request, timeout=LONG) as answer:
        return answer.read().decode()


def stop(id):
    api("DELETE", f"/jobs/{id}?grace_seconds=1&wait={LONG}")
    return ended(id)


def live():
    try:
        with urllib.request.urlopen(BASE + "/healthz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def main_pid():
    return int(sh(f"systemctl show --property MainPID --value {UNIT}"))


def cgroup_of(pid):
    with open(f"/proc/{pid}/cgroup") as lines:
        for line in lines:
            if line.startswith("0::"):
                return "/sys/fs/cgroup" + line.strip()[3:]
    raise AssertionError(f"{pid} is in no cgroup")


def value(pid, name):
    with open(f"{cgroup_of(pid)}/{name}") as file:
        return file.read().strip()


def running(id):
    return eventually("the job runs", lambda: (j := job(id))["state"] == "running" and j)


def test_the_unit_starts_and_answers():
    sh(f"systemctl start {UNIT}")
    eventually("the server is live", live)


def test_the_unit_is_ready_once_it_answers_and_says_what_runs():
    sh(f"systemctl restart {UNIT}")
    assert live(), "started, and does not answer"
    id = submit("exec sleep 1000")["id"]
    running(id)
    status = f"systemctl show --property StatusText --value {UNIT}"
    eventually("the status has the job", lambda: sh(status) == "Serving, 1 job runs")
    stop(id)
    assert sh(f"systemctl show --property WatchdogUSec --value {UNIT}") == "1min"


def test_a_reload_becomes_the_program_on_disk_and_keeps_the_job():
    id = submit("exec sleep 1000")["id"]
    before = running(id)["process"]["pid"]
    pid = main_pid()
    sh("cp /usr/local/bin/procession /usr/local/bin/fresh && mv /usr/local/bin/fresh /usr/local/bin/procession")
    inode = os.stat("/usr/local/bin/procession").st_ino
    sh(f"systemctl reload {UNIT}")
    eventually("the new program", lambda: os.stat(f"/proc/{pid}/exe").st_ino == inode)
    state = f"systemctl show --property ActiveState --value {UNIT}"
    eventually("it is ready again", lambda: sh(state) == "active" and live())
    assert main_pid() == pid and running(id)["process"]["pid"] == before
    stop(id)


def test_a_token_is_made_by_root_and_by_the_services_user():
    sh("procession token create --name root --scope read")
    sh("setpriv --reuid procession --regid procession --init-groups procession token create --name own --scope read")
    assert sh(f"find {STATE} ! -user procession") == ""


def test_systemd_holds_the_address_over_a_restart():
    sh(f"systemctl stop {UNIT} && systemctl start procession.socket {UNIT}")
    eventually("the server is live", live)
    sh(f"systemctl stop {UNIT}")
    # Nobody answers, and the connection is there all the same: systemd starts the service for it.
    eventually("systemd starts it for the client", live)
    sh("systemctl stop procession.socket", check=False)
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)


def test_a_job_is_contained_by_a_cgroup_and_a_subreaper():
    id = submit("exec sleep 1000")["id"]
    process = running(id)["process"]
    assert process["containment"] == "cgroup+subreaper", process
    assert cgroup_of(process["pid"]).startswith(f"/sys/fs/cgroup/system.slice/{UNIT}/"), cgroup_of(process["pid"])
    assert cgroup_of(process["pid"]) != cgroup_of(main_pid())
    stop(id)


def test_limits_reach_the_cgroup_of_the_job():
    id = submit("exec sleep 1000", limits={"memory_bytes": 64 << 20, "pids": 20, "cpu": 0.5})["id"]
    pid = running(id)["process"]["pid"]
    assert value(pid, "memory.max") == str(64 << 20), value(pid, "memory.max")
    assert value(pid, "pids.max") == "20", value(pid, "pids.max")
    quota, period = value(pid, "cpu.max").split()
    assert int(quota) * 2 == int(period), (quota, period)
    stop(id)


def test_a_job_over_its_memory_is_oom_killed_and_says_so():
    hog = "exec python3 -c 'x = bytearray(1 << 28); print(len(x))'"
    answer = ended(submit(hog, limits={"memory_bytes": 32 << 20})["id"])
    assert answer["state"] == "failed", answer
    assert answer["termination"]["cause"] == "oom_killed", answer
    assert answer["exit"]["oom_killed"] is True, answer
    assert answer["exit"]["signal"] == "SIGKILL", answer
    assert sh(f"systemctl is-active {UNIT}") == "active"


def test_a_fork_bomb_stays_within_its_pids_and_ends_with_its_job():
    id = submit("b() { b | b & }; b; sleep 1000", limits={"pids": 30})["id"]
    pid = running(id)["process"]["pid"]
    group = cgroup_of(pid)
    eventually("it hit the limit", lambda: "max 0" not in open(f"{group}/pids.events").read())
    assert int(open(f"{group}/pids.current").read()) <= 30
    answer = stop(id)
    assert answer["state"] == "canceled", answer
    assert not os.path.exists(group) or "populated 0" in open(f"{group}/cgroup.events").read()


def test_a_stop_takes_daemons_and_removes_the_cgroup():
    id = submit("setsid sh -c 'sleep 4001 & sleep 4002 &' & sleep 4003")["id"]
    group = cgroup_of(running(id)["process"]["pid"])
    eventually("all three are there", lambda: len(open(f"{group}/cgroup.procs").read().split()) >= 3)
    stop(id)
    assert sh("pgrep -f 'sleep 400[123]'", check=False) == ""
    eventually("the cgroup is gone", lambda: not os.path.exists(group))


def test_jobs_started_after_a_restart_of_the_unit_are_limited():
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)
    test_limits_reach_the_cgroup_of_the_job()


def test_a_restart_of_the_unit_keeps_jobs_and_their_limits():
    id = submit(
        "echo before; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo after; exit 7",
        limits={"memory_bytes": 64 << 20},
    )["id"]
    before = running(id)["process"]
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)
    after = running(id)["process"]
    assert after["pid"] == before["pid"], (before, after)
    if VERSION >= 254:
        assert value(after["pid"], "memory.max") == str(64 << 20), value(after["pid"], "memory.max")
    open("/tmp/go", "w").close()
    answer = ended(id)
    assert answer["exit"]["code"] == 7, answer
    assert answer["state"] == "failed", answer


def test_a_killed_supervisor_is_started_again_and_adopts():
    id = submit("echo before; while [ ! -e /tmp/go2 ]; do sleep 0.2; done; exit 0")["id"]
    before = running(id)["process"]
    old = main_pid()
    os.kill(old, 9)
    eventually("systemd has a new supervisor", lambda: main_pid() not in (0, old))
    eventually("the server is live again", live)
    assert running(id)["process"]["pid"] == before["pid"]
    open("/tmp/go2", "w").close()
    assert ended(id)["state"] == "succeeded"


def test_a_sandbox_closes_what_this_kernel_can_close():
    kernel = api("GET", "/info")["sandbox"]
    # Debian's kernels have both, since 12.
    assert kernel["landlock_abi"] and kernel["seccomp"], kernel
    script = f"cat {STATE}/token && echo read; kill -0 $PPID && echo signalled; python3 -c 'import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))'"
    free = submit(script)["id"]
    assert ended(free)["process"]["sandbox"] is None
    assert "read" in output(free) and "signalled" in output(free) and "\n0\n" in output(free), output(free)
    answer = submit(script, sandbox={})
    sandbox = ended(answer["id"])["process"]["sandbox"]
    missing = ["landlock_truncate"] * (kernel["landlock_abi"] < 3) + ["landlock_signal"] * (kernel["landlock_abi"] < 6)
    assert sandbox == {"landlock_abi": kernel["landlock_abi"], "seccomp": True, "missing": missing}, sandbox
    signalled = "signalled\n" if missing else ""
    assert output(answer["id"]) == f"{signalled}-1\n", output(answer["id"])
    body = {"script": "true", "sandbox": {"require": True}}
    answer = api("POST", "/jobs", body, expect=(201, 422))
    assert answer.get("code") == ("sandbox_unavailable" if missing else None), answer
    print(f"      Landlock {kernel['landlock_abi']}, missing: {missing}")


def drop_in(name, text):
    os.makedirs(f"/etc/systemd/system/{UNIT}.d", exist_ok=True)
    with open(f"/etc/systemd/system/{UNIT}.d/{name}.conf", "w") as file:
        file.write(text)
    sh("systemctl daemon-reload")


def no_drop_in(name):
    os.remove(f"/etc/systemd/system/{UNIT}.d/{name}.conf")
    sh("systemctl daemon-reload")
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)


def test_settings_are_read_from_the_file_and_the_environment_file_wins():
    with open("/etc/procession/config.toml", "a") as file:
        file.write("\nmax_running = 9\nmax_queued = 77\n")
    with open("/etc/default/procession", "w") as file:
        file.write("PROCESSION_MAX_RUNNING=5\n")
    sh("setpriv --reuid procession --regid procession --init-groups procession serve --check")
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)
    jobs = api("GET", "/info")["jobs"]
    assert (jobs["max_running"], jobs["max_queued"]) == (5, 77), jobs
    os.remove("/etc/default/procession")


def test_a_first_process_that_hangs_is_replaced_and_the_job_goes_on():
    drop_in("watchdog", "[Service]\nWatchdogSec=15s\n")
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live", live)
    id = submit("exec sleep 1000")["id"]
    before = running(id)["process"]["pid"]
    hung = main_pid()
    os.kill(hung, signal.SIGSTOP)
    eventually("systemd has another first process", lambda: main_pid() not in (0, hung))
    eventually("it is live", live)
    assert running(id)["process"]["pid"] == before
    stop(id)
    no_drop_in("watchdog")


def test_a_hardened_service_runs_jobs_within_what_is_left():
    sh(f"install -D -m 0644 /opt/test/hardened.conf /etc/systemd/system/{UNIT}.d/hardened.conf && systemctl daemon-reload")
    sh(f"systemctl restart {UNIT}")
    eventually("the server is live again", live)
    id = submit("id -u; touch /etc/mine || echo closed; touch /tmp/mine && echo open")["id"]
    answer = ended(id)
    assert answer["state"] == "succeeded", (answer, output(id))
    assert output(id).split()[1:3] == ["closed", "open"], output(id)
    assert answer["process"]["containment"] == "cgroup+subreaper", answer["process"]
    exposure = sh(f"systemd-analyze security --no-pager {UNIT} | tail -1", check=False)
    no_drop_in("hardened")
    usual = sh(f"systemd-analyze security --no-pager {UNIT} | tail -1", check=False)
    print(f"      {exposure}; without hardened.conf: {usual}")


def test_the_unit_stops_within_its_time():
    assert sh(f"systemctl is-active {UNIT}", check=False) == "active"
    began = time.monotonic()
    sh(f"systemctl stop {UNIT}")
    assert time.monotonic() - began < 30
    assert sh(f"systemctl show --property Result --value {UNIT}") == "success"


def prepare():
    sh("useradd --system --home-dir /var/lib/procession --shell /usr/sbin/nologin procession")
    # A drop-in of the packaging is for older versions only.
    if VERSION < 254:
        target = f"/etc/systemd/system/{UNIT}.d"
        os.makedirs(target, exist_ok=True)
        sh(f"cp /opt/test/before-systemd-254.conf {target}/")
    # The root file system is in memory and smaller than what is kept free by default.
    os.makedirs(f"/etc/systemd/system/{UNIT}.d", exist_ok=True)
    with open(f"/etc/systemd/system/{UNIT}.d/test.conf", "w") as file:
        file.write("[Service]\nEnvironment=PROCESSION_MIN_FREE_BYTES=1048576\n")
    sh("systemctl daemon-reload")
    print(f"Linux {os.uname().release}, systemd {VERSION}, booted in {open('/proc/uptime').read().split()[0]} s")


def main():
    print("VM-TEST-BEGIN")
    prepare()
    passed = failed = 0
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for name, test in tests:
        began = time.monotonic()
        try:
            test()
        except Exception:
            failed += 1
            print(f"FAIL  {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print(f"ok    {name} ({time.monotonic() - began:.1f} s)")
    if failed:
        print(sh(f"systemctl status --no-pager --full {UNIT}; journalctl --no-pager -u {UNIT} | tail -40", check=False))
        print(sh(f"find /sys/fs/cgroup/system.slice/{UNIT} -name cgroup.procs", check=False))
    print(f"VM-RESULT: {passed} passed, {failed} failed")


main()
