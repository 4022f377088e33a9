import createClient from "openapi-fetch";
import type { paths } from "./generated/openapi-typescript.js";
import { check, service } from "./service.js";

const { base, token } = service();
const client = createClient<paths>({ baseUrl: base, headers: { Authorization: `Bearer ${token}` } });
const { data: job, error } = await client.POST("/jobs", { body: { command: ["echo", "hello"] }, params: { query: { wait: 30 } } });
check(job?.state === "succeeded" && job.exit?.code === 0, job ?? error);
