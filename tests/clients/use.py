"""Uses the Python client of openapi-generator: use.py BASE TOKEN."""

import sys

import openapi_client as generated

base, token = sys.argv[1:]
with generated.ApiClient(generated.Configuration(host=base, access_token=token)) as client:
    submission = generated.JobSubmission(command=["echo", "hello"])
    job = generated.JobsApi(client).create_job(submission, wait=30)
    assert (job.state, job.exit.code) == ("succeeded", 0), job
    # Left alone, it asks for the type with json in its name and reads no lines of it.
    output = generated.OutputApi(client).get_output(str(job.id), _headers={"Accept": "text/plain"})
    assert output == "hello\n", output

    entries = [generated.BatchSubmissionJobsInner(key="a", repeat=2, additional_properties={"command": ["true"]})]
    many = generated.BatchSubmission(jobs=entries)
    batch = generated.BatchesApi(client).create_batch(many, wait=30).actual_instance
    assert (batch.total, batch.counts["succeeded"]) == (2, 2), batch
    assert len(generated.JobsApi(client).list_jobs(view="basic").actual_instance.jobs) >= 3
