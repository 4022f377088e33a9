"""A web service that runs commands, as many begin: Flask and subprocess.Popen. Here the processes are Procession's.

With Popen in this process, a restart of the service loses its children and their exit codes, a stop leaves what they
started, and output needs threads. Here a restart loses nothing, and there is no state to keep.

    flask --app examples/flask_app run
"""

from flask import Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

import procession

app = Flask(__name__)
service = procession.Client()
COMMANDS = {"report": ["sh", "-c", "echo collecting; sleep 0.2; echo done"], "serve": ["sleep", "3600"]}


@app.post("/commands/<name>")
def start(name: str) -> ResponseReturnValue:
    """Starts a command; a second request while it runs is refused."""
    if name not in COMMANDS:
        abort(404)
    only_one = {"key": f"web/{name}", "policy": "reject"}
    try:
        job = service.popen(COMMANDS[name], name=name, labels={"app": "web"}, concurrency=only_one)
    except procession.Refused as refused:
        return jsonify(error=refused.code), refused.status
    return jsonify(id=job.id, pid=job.pid), 201


@app.get("/commands/<id>")
def state(id: str) -> ResponseReturnValue:
    job = service.job(id)
    return jsonify(state=job.view["state"], returncode=job.returncode)


@app.get("/commands/<id>/output")
def output(id: str) -> ResponseReturnValue:
    """Line by line while it runs."""
    return Response(service.job(id).lines(), mimetype="text/plain")


@app.delete("/commands/<id>")
def stop(id: str) -> ResponseReturnValue:
    """Returns when no process of the command is left."""
    job = service.job(id)
    job.terminate(reason=f"stopped from {request.remote_addr}")
    return jsonify(returncode=job.wait(timeout=60))
