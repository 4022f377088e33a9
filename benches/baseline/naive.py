"""What one writes in an afternoon: a dict in memory, no record on disk, no output, no proof of an end."""

import subprocess
import uuid

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
jobs: dict[str, subprocess.Popen] = {}


class Spec(BaseModel):
    command: list[str]


@app.post("/jobs", status_code=201)
async def create(spec: Spec):
    process = subprocess.Popen(
        spec.command,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    job = str(uuid.uuid4())
    jobs[job] = process
    return {"id": job, "pid": process.pid}


@app.get("/running")
async def running():
    return {"running": sum(process.poll() is None for process in jobs.values())}
