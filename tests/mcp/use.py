"""The tools with the Python library: at both doors, in the protocol's versions, with progress and an early end."""

import os
import sys

import anyio
import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

PROGRAM = os.environ["PROCESSION_TEST_PROGRAM"]
URL = os.environ["PROCESSION_TEST_URL"] + "/mcp"
TOKEN = os.environ["PROCESSION_TEST_TOKEN"]
VERSIONS = ["auto", "2026-07-28", "legacy"]


def stdio():
    state = {"PROCESSION_STATE_DIR": os.environ["PROCESSION_STATE_DIR"]}
    return stdio_client(StdioServerParameters(command=PROGRAM, args=["mcp"], env=state))


def http():
    return streamable_http_client(URL, http_client=httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60))


def first_line(result):
    return result.content[0].text.splitlines()[0]


async def use(client):
    listed = await client.list_tools()
    names = [tool.name for tool in listed.tools]
    assert names == ["run_command", "wait_for_job", "read_output", "write_input", "stop_job", "signal_job",
                     "list_jobs", "list_files", "read_file", "write_file"], names

    result = await client.call_tool("run_command", {"script": "echo out; echo err >&2; exit 3"})
    assert not result.is_error, result
    assert first_line(result).startswith("exited with code 3 after "), result
    assert result.structured_content["exit"]["code"] == 3, result

    result = await client.call_tool("run_command", {"command": "echo hi"})
    assert result.is_error and "script" in result.content[0].text, result

    told = []

    async def progress(_done, _total, message):
        told.append(message)

    result = await client.call_tool("run_command", {"command": ["sleep", "3600"], "wait_seconds": 0.2},
                                    progress_callback=progress)
    assert first_line(result).startswith("still running after "), result
    job = result.structured_content["job_id"]
    assert told and job in told[0], told
    result = await client.call_tool("stop_job", {"job_id": job})
    assert first_line(result) == "stopped; no process is left", result


async def main():
    for door in (stdio, http):
        for version in VERSIONS:
            with anyio.fail_after(60):
                async with Client(door(), mode=version) as client:
                    await use(client)
            print(f"python: {door.__name__}, {version}: passed", file=sys.stderr)


anyio.run(main)
