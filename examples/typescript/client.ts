// A client in a page of TypeScript, on the types that `openapi-typescript` makes of openapi.yaml. Node 20 or newer, no packages.
//
//     const service = new Procession("http://127.0.0.1:8080", token);
//     const job = await service.start({ command: ["make"] });
//     for await (const text of service.follow(job.id)) process.stdout.write(text);
//     const ended = await service.ended(job.id);

import type { components } from "./types.js";

export type Job = components["schemas"]["Job"];
export type NewJob = components["schemas"]["JobSubmission"];
type Problem = components["schemas"]["Problem"];

export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

export class Procession {
  constructor(private readonly url: string, private readonly token: string) {}

  async request(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { ...init.headers, Authorization: `Bearer ${this.token}` };
    const answer = await fetch(this.url + path, { ...init, method, headers });
    if (!answer.ok) throw new Refused((await answer.json()) as Problem);
    return answer;
  }

  /** The key makes a repeat after a broken connection the same job. */
  async start(job: Partial<NewJob>, key: string = crypto.randomUUID()): Promise<Job> {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    return (await this.request("POST", "/jobs", { headers, body: JSON.stringify(job) })).json() as Promise<Job>;
  }

  async ended(id: string): Promise<Job> {
    for (;;) {
      const job = (await (await this.request("GET", `/jobs/${id}?wait=25`)).json()) as Job;
      if (job.finished_at !== null) return job;
    }
  }

  /** Returns when no process of the job is left, or after five minutes. */
  async stop(id: string): Promise<Job> {
    return (await this.request("DELETE", `/jobs/${id}?wait=300`)).json() as Promise<Job>;
  }

  /** All output, as it is written, over breaks of the connection. */
  async *follow(id: string): AsyncGenerator<string> {
    let offset = 0;
    const decoder = new TextDecoder();
    for (;;) {
      try {
        const answer = await this.request("GET", `/jobs/${id}/output?follow&offset=${offset}`);
        for await (const bytes of answer.body as unknown as AsyncIterable<Uint8Array>) {
          offset += bytes.length;
          yield decoder.decode(bytes, { stream: true });
        }
        return;
      } catch (error) {
        if (error instanceof Refused) throw error;
        await new Promise((resume) => setTimeout(resume, 500));
      }
    }
  }
}
