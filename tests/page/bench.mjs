// Measures a large log in the page and prints the figures as JSON: node tests/page/bench.mjs [BYTES] [JUMPS]

import { Browser, Service } from "./harness.mjs";
import { LOG_BYTES, makeLog, measure } from "./measure.mjs";

const [bytes, jumps] = [Number(process.argv[2] ?? LOG_BYTES), Number(process.argv[3] ?? 300)];
const [service, browser] = await Promise.all([Service.start(), Browser.start()]);
try {
  const job = await makeLog(service, bytes);
  const visitor = await browser.signedIn(service);
  console.log(JSON.stringify(await measure(visitor.page, service, job, jumps)));
  await visitor.leave();
} finally {
  await browser.stop();
  await service.stop();
}
