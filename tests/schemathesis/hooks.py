"""What a run of schemathesis may not do: wait for long, let jobs run for long, call strangers, or end what it is about.

Everything else goes to the service as it was made.
"""

import http.client
import os
import random

import requests
import schemathesis

URL, TOKEN, RECEIVER = os.environ["URL"], os.environ["PROCESSION_TOKEN"], os.environ["RECEIVER"]
WAIT_SECONDS = 0.2
RUN_SECONDS = 1
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
}

# After a 101 the connection speaks no HTTP any more: no other request may go over it.
speaks_no_more = http.client.HTTPResponse._check_close
http.client.HTTPResponse._check_close = lambda answer: answer.status == 101 or speaks_no_more(answer)


def shorter(value, most):
    return most if isinstance(value, (int, float)) and value > most else value


@schemathesis.hook
def map_query(context, query):
    if query and "wait" in query:
        query["wait"] = shorter(query["wait"], WAIT_SECONDS)
    return query


@schemathesis.hook
def map_headers(context, headers):
    if headers and "wait" in str(headers.get("Prefer", "")):
        headers["Prefer"] = f"wait={WAIT_SECONDS}"
    return headers


@schemathesis.hook
def before_call(context, case, kwargs):
    # Events of all jobs go on for ever.
    if case.operation.path == "/events" and (case.query or {}).get("follow", True) in (True, "true", "", "1"):
        case.query = {**(case.query or {}), "follow": "false"}
    # Without its own token a run sees nothing but 401.
    if case.operation.path == "/tokens/{name}" and (case.path_parameters or {}).get("name") == "default":
        case.path_parameters = {**case.path_parameters, "name": "gone"}
    # A head of more than 32 KiB is a matter of tests/security, and of no operation.
    for name, value in (case.query or {}).items():
        if isinstance(value, str) and len(value) > 2000:
            case.query = {**case.query, name: "x" * len(value)}
    # A description has no words for the handshake of WebSocket. Without it there is little to see: 426. What is wrong on
    # purpose stays as it is: after a change of its headers it would no longer count as wrong.
    is_wrong = case.meta is not None and case.meta.generation.mode.is_negative
    if case.operation.path == "/jobs/{id}/attach" and not is_wrong and random.Random(case.id).random() < 0.8:
        case.headers = {**(case.headers or {}), **HANDSHAKE}
    body = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path == "/jobs/wait":
        body["timeout_seconds"] = shorter(body.get("timeout_seconds", 0), WAIT_SECONDS)
    elif case.operation.path in ("/jobs", "/jobs/{id}/rerun", "/jobs/{id}"):
        if body.get("timeout_seconds", None) is None:
            body["timeout_seconds"] = RUN_SECONDS
        else:
            body["timeout_seconds"] = shorter(body["timeout_seconds"], RUN_SECONDS)
        webhooks = body.get("webhooks")
        for webhook in webhooks if isinstance(webhooks, list) else []:
            if isinstance(webhook, dict) and str(webhook.get("url", "")).lower().startswith("http"):
                webhook["url"] = RECEIVER


@schemathesis.hook
def after_call(context, case, response):
    # A service that drains takes no job, and a run without jobs sees nothing.
    if case.operation.path == "/drain" and case.method.upper() == "POST" and response.status_code == 202:
        requests.delete(URL + "/drain", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10).raise_for_status()
