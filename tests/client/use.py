"""Uses the generated client on a service that it starts: use.py PROGRAM."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

from generated import AuthenticatedClient
from generated.api.events import follow_job_events
from generated.api.jobs import create_job, get_job, list_jobs, stop_job
from generated.api.output import get_output, get_stdout
from generated.models import (
    Cause,
    GetJobUntil,
    Labels,
    JobSubmission,
    Problem,
    ProblemCode,
    State,
)

LIMIT = 30


def use(client):
    # Submit, and follow to the end.
    script = "for i in 1 2 3; do echo $i; done; exit 3"
    job = create_job.sync(
        client=client,
        body=JobSubmission(script=script, name="from-python", labels=Labels.from_dict({"a": "b"})),
        idempotency_key="first",
    )
    assert job.state in set(State), job
    text = get_output.sync(client=client, id=str(job.id), follow=True)
    assert text == "1\n2\n3\n", text
    ended = get_job.sync(client=client, id=str(job.id), wait=LIMIT, until=GetJobUntil.FINISHED)
    assert (ended.state, ended.exit_.code) == (State.FAILED, 3), ended
    assert ended.termination.cause == Cause.CAUSE_EXITED, ended
    assert ended.spec.script == script, ended.spec
    assert ended.labels.to_dict() == {"a": "b"}, ended.labels
    assert get_stdout.sync(client=client, id=str(job.id)) == text

    # The same key is the same job.
    again = create_job.sync(
        client=client,
        body=JobSubmission(script=script, name="from-python", labels=Labels.from_dict({"a": "b"})),
        idempotency_key="first",
    )
    assert again.id == job.id

    # Stop one that goes on.
    job = create_job.sync(client=client, body=JobSubmission(command=["sleep", "3600"]))
    assert job.process.pid > 1, job
    stopped = stop_job.sync(client=client, id=str(job.id), wait=LIMIT, reason="enough")
    assert stopped.state == State.CANCELED, stopped
    assert stopped.exit_.signal == "SIGTERM", stopped
    assert stopped.termination.reason == "enough", stopped

    # Lists, events and problems are read, too.
    jobs = list_jobs.sync(client=client, state=[State.CANCELED])
    assert [str(it.id) for it in jobs.jobs] == [str(job.id)], jobs
    events = follow_job_events.sync(client=client, id=str(job.id))
    assert "job.finished" in events, events
    problem = create_job.sync(client=client, body=JobSubmission(command=["x"], nice=77))
    assert isinstance(problem, Problem) and problem.code == ProblemCode.INVALID_SPEC, problem
    assert [it.pointer for it in problem.errors] == ["/nice"], problem


def main(program):
    with tempfile.TemporaryDirectory() as home:
        state = pathlib.Path(home, "state")
        command = [program, "serve", "--listen", "127.0.0.1:0", "--state-dir", str(state)]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PROCESSION_")
        }
        log = open(pathlib.Path(home, "log"), "w+")
        service = subprocess.Popen(
            command + ["--on-shutdown", "stop", "--min-free-bytes", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        # Nothing here may wait for ever.
        watch = threading.Timer(4 * LIMIT, service.kill)
        watch.start()
        try:
            line = service.stdout.readline()
            assert "listening on " in line, (line, log.seek(0), log.read())
            client = AuthenticatedClient(
                base_url=json.loads(line)["url"],
                token=(state / "token").read_text().strip(),
                timeout=2 * LIMIT,
                raise_on_unexpected_status=True,
            )
            with client:
                use(client)
        finally:
            service.send_signal(signal.SIGTERM)
            code = service.wait(LIMIT)
            watch.cancel()
            service.stdout.close()
            log.close()
        assert code == 0, code
    print("a generated client submits, follows and stops jobs")


main(sys.argv[1])
