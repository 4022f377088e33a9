"""What keeps a run of schemathesis short: no request may wait for long, and no job may run for long.

Everything else goes to the service as it was made.
"""

import schemathesis

WAIT_SECONDS = 0.2
RUN_SECONDS = 1


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
