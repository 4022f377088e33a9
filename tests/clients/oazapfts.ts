import * as api from "./generated/oazapfts.js";
import { check, service } from "./service.js";

const { base, token } = service();
api.defaults.baseUrl = base;
api.defaults.headers = { Authorization: `Bearer ${token}` };
const answer = await api.createJob({ command: ["echo", "hello"] }, { wait: 30 });
check(answer.status === 201 && answer.data.state === "succeeded", answer);
