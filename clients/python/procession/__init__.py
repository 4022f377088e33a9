"""Runs commands through Procession, as the module `subprocess` runs them here.

`run` and `Client().popen` are `subprocess.run` and `subprocess.Popen`. A restart of the service is waited for; after a
restart of this program, `Client().job(id)` gives the same handle again.
"""

from ._async import AsyncClient, AsyncJob
from ._protocol import NoExitCode, OutputDropped, ProcessionError, Refused
from ._sync import Client, Job, run

__all__ = [
    "AsyncClient", "AsyncJob", "Client", "Job", "NoExitCode", "OutputDropped", "ProcessionError", "Refused", "run",
]  # fmt: skip
