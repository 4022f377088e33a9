import { BatchesApi, Configuration, JobsApi } from "./generated/typescript-axios/index.js";
import { check, service } from "./service.js";

const { base, token } = service();
const configuration = new Configuration({ basePath: base, accessToken: token });
const jobs = new JobsApi(configuration);
const { data: job } = await jobs.createJob({ command: ["echo", "hello"] }, 30);
check(job.state === "succeeded" && job.exit?.code === 0, job);
const many = { defaults: { command: ["true"] }, jobs: [{ key: "a", repeat: 2 }] };
const { data: batch } = await new BatchesApi(configuration).createBatch(many, 30);
check("counts" in batch && batch.counts.succeeded === 2, batch);
check((await jobs.listJobs()).data.jobs.length >= 3, batch);
