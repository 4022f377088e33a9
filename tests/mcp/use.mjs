// The tools with the TypeScript library, at both doors.

import assert from 'node:assert/strict'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const { PROCESSION_TEST_PROGRAM, PROCESSION_TEST_URL, PROCESSION_TEST_TOKEN, PROCESSION_STATE_DIR } = process.env

const doors = {
  stdio: () => new StdioClientTransport({
    command: PROCESSION_TEST_PROGRAM, args: ['mcp'], env: { PROCESSION_STATE_DIR },
  }),
  http: () => new StreamableHTTPClientTransport(new URL(`${PROCESSION_TEST_URL}/mcp`), {
    requestInit: { headers: { Authorization: `Bearer ${PROCESSION_TEST_TOKEN}` } },
  }),
}

const firstLine = result => result.content[0].text.split('\n')[0]

async function use(client) {
  const { tools } = await client.listTools()
  assert.ok(tools.some(tool => tool.name === 'run_command'))

  const failed = await client.callTool({ name: 'run_command', arguments: { script: 'echo hello; exit 3' } })
  assert.match(firstLine(failed), /^exited with code 3 after /)
  assert.equal(failed.structuredContent.output, 'hello\n')

  // A client that gives up on a call does not end its job, and knows which it is.
  const told = []
  const ends = new AbortController()
  const running = client.callTool(
    { name: 'run_command', arguments: { command: ['sleep', '3600'], wait_seconds: 50 } }, undefined,
    { signal: ends.signal, onprogress: ({ message }) => { told.push(message); ends.abort() } })
  await assert.rejects(running)
  const job = told[0].split(' ')[1]
  const { structuredContent } = await client.callTool({ name: 'list_jobs', arguments: { state: 'running' } })
  assert.ok(structuredContent.jobs.some(({ id }) => id === job), JSON.stringify(structuredContent))
  const stopped = await client.callTool({ name: 'stop_job', arguments: { job_id: job } })
  assert.equal(firstLine(stopped), 'stopped; no process is left')
}

for (const [name, transport] of Object.entries(doors)) {
  const client = new Client({ name: 'test', version: '1' })
  await client.connect(transport())
  await use(client)
  await client.close()
  console.error(`typescript: ${name}: passed`)
}
