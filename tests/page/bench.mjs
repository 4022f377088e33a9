// Measures the page and prints the figures as JSON: node tests/page/bench.mjs [BYTES OF THE LOG] [JUMPS] [LINES]

import { Browser, Service } from "./harness.mjs";
import { find, firstLoad, killed, LOG_BYTES, makeLog, measure, printedToSeen } from "./measure.mjs";

const [bytes, jumps, lines] = [Number(process.argv[2] ?? LOG_BYTES), Number(process.argv[3] ?? 300), Number(process.argv[4] ?? 300)];
const [service, browser] = await Promise.all([Service.start(), Browser.start()]);
try {
  const load = await firstLoad(browser, service, 5);
  const job = await makeLog(service, bytes);
  // A server that is killed is heard of in the console.
  const visitor = await browser.signedIn(service, "", { allowed: [/net::ERR_/, /WebSocket/] });
  const log = await measure(visitor.page, service, job, jumps);
  const hits = await find(service, job, "77 abcdefghij");
  const seen = await printedToSeen(visitor, service, lines);
  const back = await killed(visitor, service, lines);
  console.log(JSON.stringify({ ...load, ...log, ...hits, ...seen, ...back }));
  await visitor.leave();
} finally {
  await browser.stop();
  await service.stop();
}
