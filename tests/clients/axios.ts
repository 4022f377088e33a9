import { Configuration, JobsApi } from "./generated/typescript-axios/index.js";
import { check, service } from "./service.js";

const { base, token } = service();
const jobs = new JobsApi(new Configuration({ basePath: base, accessToken: token }));
const { data: job } = await jobs.createJob({ command: ["echo", "hello"] }, 30);
check(job.state === "succeeded" && job.exit?.code === 0, job);
