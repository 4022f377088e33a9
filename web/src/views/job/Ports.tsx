// On which ports a job listens.

import { get } from "../../api/client.ts";
import { useResource } from "../../state/resource.ts";

interface List {
  ports: { port: number; address: string; protocol: "tcp"; pid: number }[];
  complete: boolean;
}

const EVERYWHERE = new Set(["0.0.0.0", "::"]);

export function Ports({ id }: { id: string }) {
  const list = useResource((stop) => get<List>(`/jobs/${id}/ports`, {}, stop), ["ports", id], [`job:${id}`], 4000);
  if (!list.data || (list.data.ports.length === 0 && list.data.complete)) return null;
  return (
    <div class="card">
      <header><h2>Listens on</h2></header>
      <dl class="facts">
        {list.data.ports.map((one) => [<dt key={`${one.address} ${one.port} k`} class="mono">{one.port}</dt>, <dd key={`${one.address} ${one.port}`}>{EVERYWHERE.has(one.address) ? "every address" : <span class="mono">{one.address}</span>}, PID {one.pid}</dd>])}
        {!list.data.complete && [<dt key="k">And</dt>, <dd key="v" class="muted">perhaps others: the service may not look at all of its processes</dd>]}
      </dl>
    </div>
  );
}
