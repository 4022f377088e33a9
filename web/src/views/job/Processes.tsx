// The processes of a job, in full.

import { skew } from "../../api/client.ts";
import { now } from "../../parts/parts.tsx";
import { bytes, duration, quote } from "../../state/format.ts";
import type { Watch } from "./processes.ts";

const LETTERS: Record<string, string> = { R: "runs", S: "sleeps", D: "waits for a disk", T: "stopped", t: "traced", Z: "ended, not collected", I: "idle" };

export function Processes({ watch }: { watch: Watch }) {
  if (watch.list.length === 0) return <div class="card empty"><h2>No process</h2><p class="muted">None of the job is left.</p></div>;
  return (
    <div class="card scroll">
      <table class="procs">
        <thead><tr><th>Command</th><th class="w-mem num">PID</th><th class="w-cpu wide">State</th><th class="w-mem num">Processor</th><th class="w-mem num">Memory</th><th class="w-mem xwide num">Threads</th><th class="w-time xwide num">Read</th><th class="w-time xwide num">Written</th><th class="w-time wide num">Age</th><th class="w-mem wide num">User</th></tr></thead>
        <tbody>
          {watch.list.map((one) => (
            <tr key={one.info.pid}>
              <td class="mono" title={one.info.command.map(quote).join(" ")}><span class="faint">{one.lead}</span><bdi>{one.info.command.map(quote).join(" ")}</bdi>{one.apart && <span class="label">outside of the tree</span>}</td>
              <td class="num">{one.info.pid}</td>
              <td class="wide muted" title={one.info.state}>{LETTERS[one.info.state] ?? one.info.state}</td>
              <td class="num">{one.cores === null ? "–" : `${Math.round(one.cores * 100)} %`}</td>
              <td class="num">{bytes(one.info.rss_bytes)}</td>
              <td class="num xwide muted">{one.info.threads}</td>
              <td class="num xwide muted">{one.info.read_bytes === null ? "–" : bytes(one.info.read_bytes)}</td>
              <td class="num xwide muted">{one.info.written_bytes === null ? "–" : bytes(one.info.written_bytes)}</td>
              <td class="num wide muted">{duration(Math.max(0, Math.floor((now.value + skew.value - Date.parse(one.info.started_at)) / 1000)))}</td>
              <td class="num wide muted cut">{one.info.user ?? one.info.uid}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
