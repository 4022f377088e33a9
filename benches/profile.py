#!/usr/bin/env python3
"""Counts the system calls of one job's life by role: benches/profile.py [JOBS] (needs strace).

Runs the release binary under `strace -ff`, sends one warm-up and then JOBS submissions of /bin/true, one
at a time with ?wait, and prints calls per job as a Markdown table. Tracing slows everything down: the
counts are what matters, not the times.
"""

import collections
import glob
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, "target/release/procession")
CALL = re.compile(r"^([0-9.]+) (\w+)\((.*)")
jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 50


def submit(connection, token):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/jobs?wait=20", '{"command":["/bin/true"]}', headers)
    answer = json.load(connection.getresponse())
    assert answer["state"] == "succeeded", answer


with tempfile.TemporaryDirectory() as scratch:
    state, trace = f"{scratch}/state", f"{scratch}/trace"
    strace = subprocess.Popen(
        ["strace", "-ff", "-ttt", "-s", "48", "-o", trace, BINARY, "serve", "--listen", "127.0.0.1:0"]
        + ["--state-dir", state, "--log-level", "error", "--on-shutdown", "stop"],
        stdout=subprocess.PIPE,
        text=True,
    )
    address = re.search(r"http://([0-9.:]+)", strace.stdout.readline())[1]
    token = open(f"{state}/token").read().strip()
    connection = http.client.HTTPConnection(address)
    submit(connection, token)
    time.sleep(0.5)
    begin = time.time()
    for _ in range(jobs):
        submit(connection, token)
    end = time.time()
    time.sleep(0.5)
    supervisor = min(int(path.rsplit(".", 1)[1]) for path in glob.glob(f"{trace}.*"))
    os.kill(supervisor, signal.SIGTERM)
    strace.wait()

    texts = {int(path.rsplit(".", 1)[1]): open(path, errors="replace").read() for path in glob.glob(f"{trace}.*")}

role_of, calls = {}, collections.defaultdict(collections.Counter)
for pid, text in texts.items():
    if pid == supervisor:
        role = "supervisor"
    elif 'execve("/bin/true"' in text:
        role = "leader"
    elif '"procession-mon"' in text:
        role = "monitor"
    elif "sync(" in text:
        role = "server: writer"
    else:
        role = "server: workers"
    role_of[pid] = role
    executed = False
    for line in text.splitlines():
        match = CALL.match(line)
        if not match or not begin <= float(match[1]) <= end + 0.4:
            continue
        name, rest = match[2], match[3]
        calls["program" if executed else role][name] += 1
        if name == "execve":
            executed = True
        if "O_CREAT" in rest and name.startswith("open"):
            calls["all"]["files made"] += 1
        if name in ("mkdirat", "mkdir"):
            calls["all"]["directories made"] += 1
        if name in ("clone", "clone3", "vfork", "fork"):
            calls["all"]["forks"] += 1
        if name in ("fsync", "fdatasync"):
            calls["all"]["syncs"] += 1

print(f"Per job, mean of {jobs}: " + ", ".join(f"{n / jobs:.2f} {what}" for what, n in calls.pop("all").items()))
print("\n| role | calls | the most frequent |\n|---|---|---|")
for role in ["server: workers", "server: writer", "supervisor", "monitor", "leader", "program"]:
    counts = calls[role]
    most = ", ".join(f"{name} {n / jobs:.1f}" for name, n in counts.most_common(16))
    print(f"| {role} | {sum(counts.values()) / jobs:.0f} | {most} |")
if os.environ.get("KEEP"):
    for role in ("monitor", "leader", "supervisor"):
        pid = [p for p in sorted(texts) if role_of[p] == role][-1]
        open(f"{os.environ['KEEP']}/{role}.txt", "w").write(texts[pid])
    for p in texts:
        if role_of[p].startswith("server"):
            open(f"{os.environ['KEEP']}/server.{p}.txt", "w").write(texts[p])
