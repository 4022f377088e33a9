"""What start_new_session does and does not do, shown with real processes.

Each tree is a shell with three children: one in the shell's process group, one in a session of its own, and one whose
parent has ended, as a daemon's has. A variable in their environment marks them, so that all can be found.
"""

import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import procession

TREE = """
sleep 1000 &
setsid sleep 1000 &
setsid sh -c 'sleep 1000 & echo' >/dev/null
wait
"""
MARK = "TREE"


def alive(mark: str) -> list[int]:
    """The processes of a tree, without zombies."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # Has ended, or belongs to somebody else.
            continue
        if marked and state != "Z":
            found.append(int(directory.name))
    return found


def settled(mark: str, count: int) -> int:
    """How many are alive, once there are `count` of them twice in a row or 30 seconds have passed."""
    end, before = time.monotonic() + 30, -1
    while time.monotonic() < end:
        now = len(alive(mark))
        if now == before == count:
            break
        before = now
        time.sleep(0.1)
    return before


def popen() -> tuple[subprocess.Popen[bytes], str]:
    mark = str(uuid.uuid4())
    child = subprocess.Popen(["sh", "-c", TREE], start_new_session=True, stdout=subprocess.DEVNULL, env={**os.environ, MARK: mark})
    assert settled(mark, 4) == 4
    return child, mark


def clear(mark: str) -> None:
    for pid in alive(mark):
        os.kill(pid, signal.SIGKILL)


child, mark = popen()
session, group = os.getsid(child.pid), os.getpgid(child.pid)
print("a new session: PID = PGID = SID is", child.pid == group == session)
child.kill()
child.wait()
print("kill() of the child leaves", settled(mark, 3), "of 4 processes")
clear(mark)

child, mark = popen()
os.killpg(child.pid, signal.SIGKILL)
child.wait()
print("killpg() leaves", settled(mark, 2), "of 4 processes")
clear(mark)

with procession.Client() as client:
    mark = str(uuid.uuid4())
    job = client.popen(TREE, env={MARK: mark})
    assert settled(mark, 4) == 4
    session, group = os.getsid(job.pid or 0), os.getpgid(job.pid or 0)
    print("Procession: PID = PGID = SID is", job.pid == group == session)
    job.terminate()
    job.wait()
    # No waiting: the end of the job is the end of its processes.
    print("a stop leaves", len(alive(mark)), "of 4 processes")
