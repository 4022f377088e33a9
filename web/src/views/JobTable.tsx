// The jobs of something: of a batch, of a schedule.

import { get, skew } from "../api/client.ts";
import type { BasicJob } from "../api/model.ts";
import { Icon } from "../parts/Icon.tsx";
import { Broken, Button, Loading, now } from "../parts/parts.tsx";
import { State } from "../parts/State.tsx";
import { link, place, requery } from "../router.ts";
import { moment } from "../state/format.ts";
import { useResource } from "../state/resource.ts";
import { settings } from "../state/settings.ts";
import { nameOf, ranWords, result, TINT } from "../state/words.ts";

const SIZE = 50;

/** `query` is what `GET /jobs` takes; `keyOf` names a job within its batch. */
export function JobTable({ query, keyOf, nothing }: { query: Record<string, string>; keyOf?: (id: string) => string; nothing: string }) {
  const token = place.value.query.get("page");
  const list = useResource((stop) => get<{ jobs: BasicJob[]; next_page_token: string | null }>("/jobs", { ...query, view: "basic", page_size: SIZE, page_token: token }, stop), ["jobs of", query, token], ["events"], 5000);
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading rows={4} />;
  const clock = now.value + skew.value;
  const page = (to: string | null): void => {
    const next = new URLSearchParams(place.value.query);
    if (to === null) next.delete("page");
    else next.set("page", to);
    requery(next);
  };
  return (
    <>
      <div class="card table">
        {list.data.jobs.length === 0 ? <p class="muted pad">{nothing}</p> : (
          <table class="queues">
            <thead><tr><th class="w-state">State</th><th>Job</th>{keyOf && <th class="w-time wide">Key</th>}<th class="w-time wide">Created</th><th class="w-dur">For</th><th class="w-why wide">Result</th></tr></thead>
            <tbody>{list.data.jobs.map((job) => (
              <tr key={job.id}>
                <td><State state={job.state} /></td>
                <td><span class="first"><a class={`name ${job.name === null ? "mono" : ""}`} href={link(`jobs/${job.id}`)}><bdi>{nameOf(job)}</bdi></a></span><bdi class="cmd" title={job.command}>{job.command}</bdi></td>
                {keyOf && <td class="wide muted cut mono small"><bdi>{keyOf(job.id)}</bdi></td>}
                <td class="wide muted" title={job.created_at}>{moment(job.created_at, clock, settings.value.times)}</td>
                <td><span class="two">{ranWords(job, clock)}</span>{job.max_attempts > 1 && <span class="two faint small">attempt {job.attempt} of {job.max_attempts}</span>}</td>
                <td class={`wide ${TINT[job.state] ?? "muted"}`} title={job.state_message ?? result(job)}><bdi>{result(job)}</bdi></td>
              </tr>
            ))}</tbody>
          </table>
        )}
      </div>
      {(token !== null || list.data.next_page_token !== null) && (
        <div class="pager">
          {token !== null && <Button small onClick={() => page(null)}>First page</Button>}
          {list.data.next_page_token !== null && <Button small onClick={() => page(list.data!.next_page_token)}>Next {SIZE} <Icon name="right" /></Button>}
        </div>
      )}
    </>
  );
}
