// What is in the workspace of a job, and what is kept of it.

import { useState } from "preact/hooks";
import { download, get, Problem, skew, words } from "../../api/client.ts";
import { type FileEntry, isTerminal, type Job } from "../../api/model.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Broken, Button, Loading, Menu, now, say } from "../../parts/parts.tsx";
import { bytes, count, moment } from "../../state/format.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";

interface List {
  files: FileEntry[];
  truncated: boolean;
  next_page_token: string | null;
}

const SIZE = 200;

export function Files({ job }: { job: Job }) {
  const [pages, setPages] = useState<(string | null)[]>([null]);
  const token = pages.at(-1)!;
  const path = `/jobs/${job.id}/files`;
  const list = useResource((stop) => get<List>(path, { page_size: SIZE, page_token: token }, stop), ["files", job.id, token], [`job:${job.id}`], isTerminal(job.state) ? 0 : 4000);
  const save = (from: string): void => { download(from, null).catch((error: unknown) => say(words(error), true)); };
  if (list.error && !list.data) {
    if (list.error instanceof Problem && list.error.code === "no_workspace") return <div class="card empty"><h2>No workspace</h2><p class="muted">The job has none, or nothing of it is kept.</p></div>;
    return <Broken error={list.error} again={list.reload} />;
  }
  if (!list.data) return <Loading rows={4} />;
  const { files, truncated, next_page_token: next } = list.data;
  const clock = now.value + skew.value;
  return (
    <section aria-label="Files">
      <div class="card table">
        <header class="headed">
          <h2>Files</h2><Found job={job} /><div class="grow" />
          {files.length > 0 && <Menu small icon="download" label="Download all" items={["tar.gz", "tar", "zip"].map((kind) => ({ key: kind, word: `All, as ${kind}`, run: () => save(`${path}.${kind}`) }))} />}
        </header>
        {files.length === 0 ? <p class="muted pad">{isTerminal(job.state) ? "Nothing is kept." : "Nothing is there yet."}</p> : (
          <table class="queues">
            <thead><tr><th>Path</th><th class="w-size num">Size</th><th class="w-time wide">Changed</th><th class="w-size wide">Mode</th><th class="w-act"><span class="spoken">Actions</span></th></tr></thead>
            <tbody>{files.map((one) => (
              <tr key={one.path}>
                <td title={one.path}><span class="first"><bdi class={`cut mono small ${one.type === "file" ? "" : "muted"}`}>{one.path}{one.type === "directory" && "/"}</bdi>{one.type === "symlink" && <span class="faint small">link</span>}{one.artifact && <span class="label">artifact</span>}</span></td>
                <td class="num">{one.type === "file" ? bytes(one.bytes) : ""}</td>
                <td class="wide muted" title={one.modified_at}>{moment(one.modified_at, clock, settings.value.times)}</td>
                <td class="wide muted mono">{one.mode}</td>
                <td class="w-act">{one.type === "file" && <Button small icon="download" label={`Download ${one.path}`} onClick={() => save(`${path}/${one.path.split("/").map(encodeURIComponent).join("/")}`)} />}</td>
              </tr>
            ))}</tbody>
          </table>
        )}
      </div>
      {truncated && <p class="muted small">Not everything could be looked at.</p>}
      {(pages.length > 1 || next !== null) && (
        <div class="pager">
          {pages.length > 1 && <Button small icon="left" onClick={() => setPages(pages.slice(0, -1))}>Back</Button>}
          {next !== null && <Button small onClick={() => setPages([...pages, next])}>Next {SIZE} <Icon name="right" /></Button>}
        </div>
      )}
    </section>
  );
}

/** What became of the artifacts. */
function Found({ job }: { job: Job }) {
  const found = job.artifacts;
  if (!found) return <span class="sub">{job.spec.artifacts !== null ? "artifacts are looked for at the end" : ""}</span>;
  return (
    <>
      <span class="sub">{found.files === 1 ? "one artifact" : `${count(found.files)} artifacts`}, {bytes(found.bytes)}</span>
      {found.missing.length > 0 && <span class="tint-amber small"><bdi>nothing matches {found.missing.join(", ")}</bdi></span>}
      {found.truncated && <span class="tint-amber small">a limit was reached: all is kept</span>}
      {found.error !== null && <span class="tint-red small"><bdi>{found.error}</bdi></span>}
    </>
  );
}
