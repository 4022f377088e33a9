// How much ran and waited, and what the jobs that ended have used, as lines over time; and all of it as a table.

import { count, duration } from "../state/format.ts";
import { endsOf, jobsOf } from "./Bars.tsx";
import type { Bucket } from "./buckets.ts";
import { Line, Plot, timeOf, topOf } from "./Plot.tsx";

/** The most that ran and waited, of each bar. */
export function Lines({ buckets, range }: { buckets: Bucket[]; range: number }) {
  const top = topOf(buckets.flatMap((one) => [one.running, one.queued]));
  const peak = (of: (one: Bucket) => number): number => Math.max(0, ...buckets.map(of));
  return (
    <Plot buckets={buckets} range={range} scale={[top, top / 2, 0].map(count)} label={`At most ${peak((one) => one.running)} ran and ${peak((one) => one.queued)} waited at a time`}>
      <Line buckets={buckets} top={top} of={(one) => one.queued} colour="grey" filled />
      <Line buckets={buckets} top={top} of={(one) => one.running} colour="blue" />
    </Plot>
  );
}

/** What the jobs that ended in each bar have used of processors. */
export function Used({ buckets, range }: { buckets: Bucket[]; range: number }) {
  const top = Math.max(1, ...buckets.map((one) => one.cpu));
  return (
    <Plot buckets={buckets} range={range} scale={[top, top / 2].map((part) => duration(Math.ceil(part))).concat("0")} label={`Jobs that ended have used ${duration(buckets.reduce((sum, one) => sum + one.cpu, 0))} of processors`}>
      <Line buckets={buckets} top={top} of={(one) => one.cpu} colour="violet" filled />
    </Plot>
  );
}

/** The charts in words. */
export function Table({ buckets, range }: { buckets: Bucket[]; range: number }) {
  const some = buckets.filter((one) => one.total > 0 || one.running > 0 || one.queued > 0 || one.cpu > 0).reverse();
  return (
    <details class="card folded">
      <summary class="muted small">The same as a table</summary>
      {some.length === 0 ? <p class="muted pad">Nothing has run.</p> : (
        <table>
          <thead><tr><th class="w-time">From</th><th>Ended</th><th class="w-time num">Ran</th><th class="w-time num">Waited</th><th class="w-time num">Processor</th></tr></thead>
          <tbody>{some.map((one) => (
            <tr key={one.from}><td class="muted">{timeOf(one.from, range)}</td><td>{one.total > 0 ? <a class="plain" href={jobsOf(one, range)}>{endsOf(one)}</a> : <span class="faint">none</span>}</td><td class="num">{count(one.running)}</td><td class="num">{count(one.queued)}</td><td class="num muted">{one.cpu > 0 ? duration(one.cpu) : "–"}</td></tr>
          ))}</tbody>
        </table>
      )}
    </details>
  );
}
