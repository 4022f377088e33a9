"""Runs inside a virtual machine with the oldest kernel that is supported: a start, a stop of all processes, an adoption.

There are no cgroups of jobs before Linux 5.14, so that this is what containment without them does. The program has to be
one that needs no library of the machine:

    tests/vm/run.sh --suite bullseye --guest tests/vm/oldest.py --binary target/x86_64-unknown-linux-musl/dist/procession
"""

import json
import os
import subprocess
import sys
import time
import traceback

STATE = "/run/procession-test"
ENVIRONMENT = {**os.environ, "PROCESSION_STATE_DIR": STATE, "PROCESSION_MIN_FREE_BYTES": "0", "PROCESSION_LISTEN": "127.0.0.1:8080"}
# Emulation is slow: every wait is bounded by this.
LONG = 60
services = []


def procession(*arguments, check=True):
    done = subprocess.run(["procession", *arguments], text=True, capture_output=True, env=ENVIRONMENT, timeout=2 * LONG)
    assert not check or done.returncode == 0, (arguments, done)
    return done.stdout.strip()


def eventually(what, condition):
    end = time.monotonic() + LONG
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.1)


def serve():
    service = subprocess.Popen(["procession", "serve"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert service.stdout.readline(), "it did not start"
    return service


def has(text):
    return subprocess.run(["pgrep", "-f", text], capture_output=True).returncode == 0


def job(name):
    return json.loads(procession("show", "--json", name))


def test_a_job_runs_and_its_end_is_known():
    done = subprocess.run(["procession", "run", "--", "sh", "-c", "echo hello; exit 3"], text=True, capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (3, "hello\n"), done


def test_a_stop_takes_daemons():
    procession("run", "-d", "--name", "tree", "--", "sh", "-c", "setsid sh -c 'sleep 4001 & sleep 4002 &' & sleep 4003")
    eventually("all three are there", lambda: all(has(f"sleep 400{number}") for number in (1, 2, 3)))
    print("      contained by", job("tree")["process"]["containment"])
    procession("stop", "tree")
    assert not has("sleep 400[123]")


def test_a_service_that_was_killed_finds_its_job():
    procession("run", "-d", "--name", "kept", "--", "sleep", "5000")
    before = job("kept")["process"]["pid"]
    service = services.pop()
    service.kill()
    service.wait()
    services.append(serve())
    assert job("kept")["process"]["pid"] == before
    procession("stop", "kept")
    assert job("kept")["state"] == "canceled", job("kept")


def test_the_doctor_says_what_the_kernel_lacks():
    said = procession("doctor", check=False)
    line = next(line for line in said.splitlines() if "Linux" in line)
    assert "5.14" in line, said
    print(f"      {line.strip()}")


def main():
    print("VM-TEST-BEGIN")
    print(f"Linux {os.uname().release}")
    services.append(serve())
    passed = failed = 0
    for name, test in [(name, test) for name, test in globals().items() if name.startswith("test_")]:
        try:
            test()
        except Exception:
            failed += 1
            print(f"FAIL  {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print(f"ok    {name}")
    print(f"VM-RESULT: {passed} passed, {failed} failed")


main()
