import { createClient } from "./generated/hey-api/client/index.js";
import { createJob } from "./generated/hey-api/index.js";
import { check, service } from "./service.js";

const { base, token } = service();
const client = createClient({ baseUrl: base, auth: token });
const { data: job, error } = await createJob({ client, body: { command: ["echo", "hello"] }, query: { wait: 30 } });
check(job?.state === "succeeded" && job.exit?.code === 0, job ?? error);
