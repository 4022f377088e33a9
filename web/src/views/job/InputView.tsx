// Writing to an open standard input; by offset, so that a repeat is safe.

import { useState } from "preact/hooks";
import { Problem, sendThrough, words } from "../../api/client.ts";
import type { Job } from "../../api/model.ts";
import { Button, Field, say } from "../../parts/parts.tsx";
import { bytes } from "../../state/format.ts";

export function InputView({ job }: { job: Job }) {
  const [text, setText] = useState("");
  const [feed, setFeed] = useState(true);
  const [busy, setBusy] = useState(false);
  const [offset, setOffset] = useState<number | null>(null);
  const [log, setLog] = useState<string[]>([]);
  const write = async (body: BodyInit | null, size: number, eof: boolean, what: string): Promise<void> => {
    setBusy(true);
    try {
      const options = body === null ? {} : { raw: body };
      const answer = await sendThrough("POST", `/jobs/${job.id}/stdin`, { ...options, query: { eof: eof ? true : null, offset } });
      const at = Number(answer.headers.get("Procession-Stdin-Offset"));
      setOffset(Number.isFinite(at) ? at : null);
      setLog((old) => [...old.slice(-49), `${what}${size > 0 ? `, ${bytes(size)}` : ""}`]);
      setText("");
    } catch (error) {
      if (error instanceof Problem && error.code === "stdin_offset_mismatch") setOffset(null);
      say(words(error), true);
    }
    setBusy(false);
  };
  const send = (): void => {
    const all = new TextEncoder().encode(feed ? `${text}\n` : text);
    void write(all, all.length, false, "written");
  };
  return (
    <div class="card pad">
      <Field id="stdin" label="Standard input" hint="Ctrl-Enter sends it"><textarea id="stdin" class="input" rows={4} spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={(event) => { if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); send(); } }} /></Field>
      <div class="inline wraps">
        <label class="inline small"><input type="checkbox" checked={feed} onChange={() => setFeed(!feed)} />with a line feed</label>
        <span class="grow" />
        <label class="btn">A file …<input type="file" class="spoken" disabled={busy} onChange={(event) => { const file = event.currentTarget.files?.[0]; if (file) void write(file, file.size, false, file.name); event.currentTarget.value = ""; }} /></label>
        <Button disabled={busy} onClick={() => void write(null, 0, true, "end of input")}>End of input</Button>
        <Button kind="go" disabled={busy || (text === "" && !feed)} onClick={send}>Send</Button>
      </div>
      <ol class="small muted">{log.map((line, i) => <li key={i}><bdi>{line}</bdi></li>)}</ol>
    </div>
  );
}
