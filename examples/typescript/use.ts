// What the test runs: starts a job, follows it, stops another.
import { Procession, Refused } from "./client.js";

declare const process: { env: Record<string, string | undefined> };
const service = new Procession(process.env["PROCESSION_URL"]!, process.env["PROCESSION_TOKEN"]!);
const job = await service.start({ script: "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 3" });
let text = "";
for await (const part of service.follow(job.id)) text += part;
const ended = await service.ended(job.id);
console.log(JSON.stringify(text), ended.state, ended.exit?.code);
const sleeper = await service.start({ command: ["sleep", "1000"] });
console.log((await service.stop(sleeper.id)).state);
try {
  await service.start({ command: ["true"], nice: 77 });
} catch (error) {
  console.log(error instanceof Refused && error.problem.code);
}
