import { createJob } from "./generated/orval.js";
import { check, service } from "./service.js";

const { base, token } = service();
// What it generates has relative paths: the way to the service is the caller's.
const direct = globalThis.fetch;
globalThis.fetch = (path, options) => direct(`${base}${path}`, options);
const answer = await createJob({ command: ["echo", "hello"] }, { wait: 30 }, { headers: { Authorization: `Bearer ${token}` } });
check(answer.status === 201 && answer.data.state === "succeeded", answer.data);
