// Writing to an open standard input; by offset, so that a repeat is safe.

import { useState } from "preact/hooks";
import { Problem, sendThrough, words } from "../../api/client.ts";
import type { Job } from "../../api/model.ts";
import { Button, Field, say } from "../../parts/parts.tsx";
import { bytes } from "../../state/format.ts";

/** Where the next byte goes, as an answer says it. */
function next(headers: Headers | null): number | null {
  const text = headers?.get("Procession-Stdin-Offset") ?? null;
  return text === null ? null : Number(text);
}

/** Writes all of it from `offset` on, once: what an answer that got lost has written is not written again. */
async function put(id: string, body: Blob, eof: boolean, offset: number | null): Promise<number | null> {
  const path = `/jobs/${id}/stdin`;
  const begin = offset ?? next((await sendThrough("POST", path)).headers);
  if (begin === null) throw new Error("The service does not say where the input is.");
  let from = begin;
  let lost = false;
  for (;;) {
    try {
      const answer = await sendThrough("POST", path, { raw: body.slice(from - begin), query: { offset: from, eof: eof ? true : null } }, () => { lost = true; });
      return next(answer.headers);
    } catch (error) {
      const at = error instanceof Problem && error.code === "stdin_offset_mismatch" ? next(error.headers) : null;
      if (!lost || at === null || at <= from || at > begin + body.size) throw error;
      from = at;
      if (from === begin + body.size && !eof) return from;
    }
  }
}

export function InputView({ job }: { job: Job }) {
  const [text, setText] = useState("");
  const [feed, setFeed] = useState(true);
  const [busy, setBusy] = useState(false);
  const [offset, setOffset] = useState<number | null>(null);
  const [log, setLog] = useState<string[]>([]);
  const write = async (body: Blob, eof: boolean, what: string): Promise<void> => {
    setBusy(true);
    try {
      setOffset(await put(job.id, body, eof, offset));
      setLog((old) => [...old.slice(-49), `${what}${body.size > 0 ? `, ${bytes(body.size)}` : ""}`]);
      setText("");
    } catch (error) {
      if (error instanceof Problem && error.code === "stdin_offset_mismatch") setOffset(null);
      say(words(error), true);
    }
    setBusy(false);
  };
  const send = (): void => void write(new Blob([feed ? `${text}\n` : text]), false, "written");
  return (
    <div class="card pad">
      <Field id="stdin" label="Standard input" hint="Ctrl-Enter sends it"><textarea id="stdin" class="input" rows={4} spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={(event) => { if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); send(); } }} /></Field>
      <div class="inline wraps">
        <label class="inline small"><input type="checkbox" checked={feed} onChange={() => setFeed(!feed)} />with a line feed</label>
        <span class="grow" />
        <label class="btn">A file …<input type="file" class="spoken" disabled={busy} onChange={(event) => { const file = event.currentTarget.files?.[0]; if (file) void write(file, false, file.name); event.currentTarget.value = ""; }} /></label>
        <Button disabled={busy} onClick={() => void write(new Blob(), true, "end of input")}>End of input</Button>
        <Button kind="go" disabled={busy || (text === "" && !feed)} onClick={send}>Send</Button>
      </div>
      <ol class="small muted">{log.map((line, i) => <li key={i}><bdi>{line}</bdi></li>)}</ol>
    </div>
  );
}
