"""Uses the Python client of openapi-generator: use.py BASE TOKEN."""

import sys

import openapi_client as generated

base, token = sys.argv[1:]
with generated.ApiClient(generated.Configuration(host=base, access_token=token)) as client:
    submission = generated.JobSubmission(command=["echo", "hello"])
    job = generated.JobsApi(client).create_job(submission, wait=30)
    assert (job.state, job.exit.code) == ("succeeded", 0), job
    assert generated.OutputApi(client).get_output(str(job.id)) == "hello\n"
