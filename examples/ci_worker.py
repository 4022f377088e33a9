"""A CI worker: the steps of a build as jobs, one after the other, with a time limit each and the output as it comes.

    ci_worker.py BRANCH DIRECTORY STEP...

A newer build of the same branch replaces an older one. If the worker itself is killed, its step runs on to its end or its
time limit, and `procession ps -l build=ID` finds it.
"""

import subprocess
import sys
import uuid

import procession


def build(branch: str, directory: str, steps: list[str]) -> int:
    labels = {"app": "ci", "build": uuid.uuid4().hex[:12]}
    with procession.Client() as client:
        for number, step in enumerate(steps, 1):
            job = client.popen(
                step,
                name=f"ci/{branch}/{number}",
                labels=labels,
                cwd=directory,
                queue="ci",
                timeout_seconds=1800,
                concurrency={"key": f"ci/{branch}", "policy": "replace"},
                output={"merge_stderr": True},
            )
            print(f"[{number}/{len(steps)}] {step}", flush=True)
            for line in job:
                print(f"    {line}", end="", flush=True)
            try:
                code = job.wait()
            except procession.NoExitCode as end:
                print(f"    {end}")
                return 1
            if code != 0:
                cause = job.view["termination"]["cause"]
                print(f"    failed: {cause}, {subprocess.list2cmdline([step])!r} gave {code}")
                return 1
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(build(sys.argv[1], sys.argv[2], sys.argv[3:]))
