// Measures the page and prints the figures as JSON: node tests/page/bench.mjs [BYTES OF THE LOG] [JUMPS] [LINES] [QUIET SECONDS]

import { Browser, Service } from "./harness.mjs";
import { keys, quiet } from "./idle.mjs";
import { find, firstLoad, killed, LOG_BYTES, makeLog, measure, printedToSeen } from "./measure.mjs";

const [bytes, jumps, lines, seconds] = [LOG_BYTES, 300, 300, 60].map((usual, i) => Number(process.argv[2 + i] ?? usual));
const [service, browser] = await Promise.all([Service.start(), Browser.start()]);
try {
  const idle = await quiet(browser, service, seconds);
  const load = await firstLoad(browser, service, 5);
  const job = await makeLog(service, bytes);
  // A server that is killed is heard of in the console.
  const visitor = await browser.signedIn(service, "", { allowed: [/net::ERR_/, /WebSocket/] });
  const log = await measure(visitor.page, service, job, jumps);
  const pressed = await keys(visitor, service, job, jumps);
  const hits = await find(service, job, "77 abcdefghij");
  const seen = await printedToSeen(visitor, service, lines);
  const back = await killed(visitor, service, lines);
  console.log(JSON.stringify({ ...idle, ...load, ...log, ...pressed, ...hits, ...seen, ...back }));
  await visitor.leave();
} finally {
  await browser.stop();
  await service.stop();
}
