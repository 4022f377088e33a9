"""Starts a Jupyter kernel as a job: it outlives the notebook server, and a stop also ends what it started.

    jupyter_kernel.py start FILE        writes a connection file for `jupyter console --existing FILE`; prints the job's id
    jupyter_kernel.py interrupt ID
    jupyter_kernel.py stop ID
"""

import signal
import sys

from jupyter_client.connect import write_connection_file

import procession


def start(client: procession.Client, file: str) -> str:
    write_connection_file(file)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", file]
    return client.popen(command, name="kernel", labels={"app": "jupyter"}, stop={"grace_seconds": 5}).id


def main(action: str, what: str) -> None:
    with procession.Client() as client:
        if action == "start":
            print(start(client, what))
        elif action == "interrupt":
            client.job(what).send_signal(signal.SIGINT)
        else:
            job = client.job(what)
            job.terminate()
            job.wait()


if __name__ == "__main__":
    main(*sys.argv[1:3])
