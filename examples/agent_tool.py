"""A tool for an agent: run a shell script, with a time limit, and get a short answer. Plain HTTP, no package.

The model gets TOOL; what it calls goes to `call`. Long output is cut in the middle of the story, never in the middle of the
truth: the answer says how much there was, and the job's id leads to all of it.
"""

import json
import os
import urllib.error
import urllib.request
from typing import Any

URL = os.environ.get("PROCESSION_URL", "http://127.0.0.1:8080")
SHOWN_BYTES = 8_000

TOOL = {
    "name": "run_script",
    "description": "Run a shell script on the machine and return its exit code and the end of its output.",
    "input_schema": {
        "type": "object",
        "properties": {
            "script": {"type": "string"},
            "timeout_seconds": {"type": "number", "minimum": 1, "maximum": 280, "default": 60},
        },
        "required": ["script"],
    },
}


def request(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[bytes, Any]:
    made = urllib.request.Request(URL + path, method=method, data=None if body is None else json.dumps(body).encode())
    made.add_header("Authorization", f"Bearer {os.environ['PROCESSION_TOKEN']}")
    made.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(made, timeout=330) as answer:
        return answer.read(), answer.headers


def call(script: str, timeout_seconds: float = 60) -> dict[str, Any]:
    """Does not raise for what the model can repair."""
    job = {
        "script": script,
        "timeout_seconds": timeout_seconds,
        "stop": {"grace_seconds": 2},
        "labels": {"app": "agent"},
        "output": {"merge_stderr": True},
    }
    try:
        # The service ends the job after its time limit; the wait covers that and the grace period.
        body, _ = request("POST", f"/jobs?wait={timeout_seconds + 10}", job)
    except urllib.error.HTTPError as error:
        return {"error": json.load(error).get("detail", str(error))}
    view = json.loads(body)
    output, headers = request("GET", f"/jobs/{view['id']}/output?tail_bytes={SHOWN_BYTES}")
    answer = {"id": view["id"], "state": view["state"], "output": output.decode(errors="replace")}
    answer["exit_code"] = view["exit"] and view["exit"]["code"]
    left_out = int(headers["Procession-First-Offset"])
    if left_out:
        answer["note"] = f"the first {left_out} bytes of output are left out"
    if view["spawn_failure"]:
        answer["error"] = view["spawn_failure"]["message"]
    return answer
