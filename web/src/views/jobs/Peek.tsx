// The last lines of a job, beside the list.

import { useEffect } from "preact/hooks";
import { send, words } from "../../api/client.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Button } from "../../parts/parts.tsx";
import { link } from "../../router.ts";
import { useResource } from "../../state/resource.ts";
import { plain } from "../../log/ansi.ts";

export function Peek({ id, onClose }: { id: string; onClose: () => void }) {
  const tail = useResource(async (signal) => {
    const answer = await send("GET", `/jobs/${id}/output`, { query: { tail_lines: 20, limit_bytes: 65536 }, headers: { Accept: "application/octet-stream" }, signal });
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const rows: string[] = [];
    for (let from = 0; from < bytes.length;) {
      const feed = bytes.indexOf(10, from);
      const to = feed < 0 ? bytes.length : feed;
      rows.push(plain(bytes.subarray(from, to)));
      from = to + 1;
    }
    return rows.join("\n");
  }, ["peek", id], [`output:${id}`]);
  useEffect(() => {
    const hear = (event: KeyboardEvent): void => {
      if (event.key === "Escape") onClose();
    };
    document.addEventListener("keydown", hear);
    return () => document.removeEventListener("keydown", hear);
  }, []);
  return (
    <aside class="drawer" aria-label="Last lines">
      <header><b>Last lines</b><span class="grow" /><a class="btn small" href={link(`jobs/${id}`)}>Open <Icon name="right" /></a><Button small icon="close" label="Close" onClick={onClose} /></header>
      <pre tabIndex={0}><bdi>{tail.data ?? (tail.error ? words(tail.error) : "")}</bdi></pre>
    </aside>
  );
}
