import { BatchesApi, Configuration, JobsApi, OutputApi } from "./generated/typescript-fetch/index.js";
import { check, service } from "./service.js";

const { base, token } = service();
const configuration = new Configuration({ basePath: base, accessToken: token });
const jobs = new JobsApi(configuration);
const job = await jobs.createJob({ jobSubmission: { command: ["echo", "hello"], stdin: { mode: "data", text: "x" } }, wait: 30 });
check(job.state === "succeeded" && job.exit?.code === 0, job);
check(await new OutputApi(configuration).getOutput({ id: job.id }) === "hello\n", job.id);
const many = { defaults: { command: ["true"] }, jobs: [{ key: "a", repeat: 2 }] };
const batch = await new BatchesApi(configuration).createBatch({ batchSubmission: many, wait: 30 });
check("counts" in batch && batch.counts.succeeded === 2, batch);
check((await jobs.listJobs({ view: "basic" })).jobs.length >= 3, batch);
