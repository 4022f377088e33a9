// The batches: how far each of them is.

import { get, skew } from "../../api/client.ts";
import type { Batch } from "../../api/model.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Broken, Button, Labels, Loading, now } from "../../parts/parts.tsx";
import { State } from "../../parts/State.tsx";
import { link, place, requery } from "../../router.ts";
import { actor, duration, moment } from "../../state/format.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { nameOf } from "../../state/words.ts";
import { parts, progress } from "./batches.ts";

export function Batches() {
  const token = place.value.query.get("page");
  const list = useResource((stop) => get<{ batches: Batch[]; next_page_token: string | null }>("/batches", { page_size: 50, page_token: token }, stop), ["batches", token], ["events"], 5000);
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading />;
  const { batches, next_page_token: next } = list.data;
  if (batches.length === 0) return <div class="card empty"><h2>No batch</h2><p class="muted">A batch is many jobs that were created together: all of them or none, with what depends on what.</p><code class="mono box">procession batch -f jobs.yaml</code></div>;
  return (
    <div class="stack">
      <div class="card table">
        <table class="queues">
          <thead><tr><th class="w-state">State</th><th>Batch</th><th class="w-bar">Jobs</th><th class="w-time wide">Created</th><th class="w-dur wide">For</th><th class="w-by num wide">By</th></tr></thead>
          <tbody>{batches.map((batch) => <Row key={batch.id} batch={batch} />)}</tbody>
        </table>
      </div>
      {(token !== null || next !== null) && (
        <div class="pager">
          {token !== null && <Button small onClick={() => requery(new URLSearchParams())}>First page</Button>}
          {next !== null && <Button small onClick={() => requery(new URLSearchParams({ page: next }))}>Next 50 <Icon name="right" /></Button>}
        </div>
      )}
    </div>
  );
}

function Row({ batch }: { batch: Batch }) {
  const clock = now.value + skew.value;
  return (
    <tr>
      <td><State state={batch.state} /></td>
      <td>
        <span class="first"><a class={`name ${batch.name === null ? "mono" : ""}`} href={link(`batches/${batch.id}`)}><bdi>{nameOf(batch)}</bdi></a><span class="wide labels"><Labels labels={batch.labels} most={2} /></span></span>
        <span class="cmd">{progress(batch)}</span>
      </td>
      <td><PartsBar batch={batch} /></td>
      <td class="wide muted" title={batch.created_at}>{moment(batch.created_at, clock, settings.value.times)}</td>
      <td class="wide muted">{duration(Math.max(0, Math.floor(((batch.finished_at ? Date.parse(batch.finished_at) : clock) - Date.parse(batch.created_at)) / 1000)))}</td>
      <td class="num wide muted">{actor(batch.created_by)}</td>
    </tr>
  );
}

/** How many are in each state, as a bar; the words are beside it. */
export function PartsBar({ batch }: { batch: Batch }) {
  return <div class="meter parts" aria-hidden="true">{parts(batch).map((one) => <i key={one.state} class={`fill-${one.state === "starting" ? "running" : one.state}`} style={{ width: `${one.part * 100}%` }} />)}</div>;
}
