// The recording of a terminal job, played. Loaded when it is first opened.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Terminal as Xterm } from "@xterm/xterm";
import { download, send, words } from "../api/client.ts";
import type { Job } from "../api/model.ts";
import { Button, Loading, say, Segments } from "../parts/parts.tsx";
import { duration } from "../state/format.ts";
import { settings } from "../state/settings.ts";
import { nameOf } from "../state/words.ts";
import { type Cast, countBy, parseCast, squeezed } from "./cast.ts";
import { make, withNonce } from "./xterm.ts";

/** The most bytes that are played here. */
const MOST = 64 << 20;
/** Longer pauses are cut to this, in seconds, unless all are wanted. */
const PAUSE = 2;

type Speed = "1" | "2" | "5";

export default function Player({ job }: { job: Job }) {
  const [cast, setCast] = useState<Cast | null>(null);
  const [problem, setProblem] = useState("");
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    fetchCast(job.id, abort.signal).then(setCast, (error: unknown) => { if (!abort.signal.aborted) setProblem(words(error)); });
    return () => abort.abort();
  }, [job.id, turn]);
  const save = (): void => { download(`/jobs/${job.id}/recording.cast`, `${(job.name ?? job.id).replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+/, "") || "job"}.cast`).catch((error: unknown) => say(words(error), true)); };
  if (problem) return <div class="card empty"><h2>No recording to play</h2><p class="muted">{problem}</p><Button small icon="download" onClick={save}>Download it</Button></div>;
  if (!cast) return <Loading />;
  return <Screen key={turn} cast={cast} name={nameOf(job)} onSave={save} onReload={job.finished_at === null ? () => setTurn(turn + 1) : null} />;
}

async function fetchCast(id: string, signal: AbortSignal): Promise<Cast> {
  const answer = await send("GET", `/jobs/${id}/recording.cast`, { signal });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  const parts: string[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return parseCast(parts.join(""));
    size += value.length;
    if (size > MOST) {
      void reader.cancel();
      throw new Error("It is too long to be played here. A player on your machine can.");
    }
    parts.push(value);
  }
}

function Screen({ cast, name, onSave, onReload }: { cast: Cast; name: string; onSave: () => void; onReload: (() => void) | null }) {
  const box = useRef<HTMLDivElement>(null);
  const xterm = useRef<Xterm | null>(null);
  const shown = useRef(0);
  const [speed, setSpeed] = useState<Speed>("1");
  const [all, setAll] = useState(false);
  const [playing, setPlaying] = useState(false);
  const [at, setAt] = useState(0);
  const times = useMemo(() => squeezed(cast.events, all ? Infinity : PAUSE), [cast, all]);
  const end = times.at(-1) ?? 0;

  /** Shows what was there at that moment. */
  const show = (moment: number): void => {
    const terminal = xterm.current;
    if (!terminal) return;
    const to = countBy(times, moment);
    if (to < shown.current) {
      terminal.reset();
      withNonce(() => terminal.resize(cast.cols, cast.rows));
      shown.current = 0;
    }
    let text = "";
    for (const event of cast.events.slice(shown.current, to)) {
      if (event.kind === "output") text += event.text;
      else if (event.kind === "size") {
        terminal.write(text);
        text = "";
        // In its turn: what was written before belongs to the size before.
        terminal.write("", () => withNonce(() => terminal.resize(event.cols, event.rows)));
      } else text += `\r\n\x1b[2m${event.text}\x1b[0m\r\n`;
    }
    if (text !== "") terminal.write(text);
    shown.current = to;
  };

  useEffect(() => {
    const made = make(box.current!, { scrollback: 1000, disableStdin: true, cols: cast.cols, rows: cast.rows, cursorBlink: false });
    xterm.current = made;
    shown.current = 0;
    show(at);
    return () => {
      made.dispose();
      xterm.current = null;
    };
  }, [cast, settings.value.theme]);

  useEffect(() => {
    if (!playing) return;
    let last = performance.now();
    let moment = at >= end ? 0 : at;
    let told = 0;
    let frame = 0;
    const step = (now: number): void => {
      moment = Math.min(end, moment + ((now - last) / 1000) * Number(speed));
      last = now;
      show(moment);
      if (now - told > 200 || moment >= end) {
        told = now;
        setAt(moment);
      }
      if (moment >= end) setPlaying(false);
      else frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [playing, speed, times]);

  const seek = (moment: number): void => {
    setPlaying(false);
    setAt(moment);
    show(moment);
  };
  const toggle = (): void => {
    if (!playing && at >= end) show(0);
    setPlaying(!playing);
  };
  if (cast.events.length === 0) return <div class="card empty"><h2>Nothing was written</h2><p class="muted">The recording has no output yet.</p>{onReload && <Button small icon="again" onClick={onReload}>Look again</Button>}</div>;
  return (
    <section class="card log" aria-label={`Recording of ${name}`}>
      <div class="tools player">
        <Button small icon={playing ? "pause" : "play"} kind="go" onClick={toggle}>{playing ? "Pause" : "Play"}</Button>
        <input type="range" class="grow" min={0} max={end || 1} step="any" value={at} aria-label="Place in the recording" aria-valuetext={`${duration(Math.floor(at))} of ${duration(Math.floor(end))}`} onInput={(event) => seek(event.currentTarget.valueAsNumber)} />
        <span class="num small muted nowrap">{clock(at)} / {clock(end)}</span>
        <Segments<Speed> label="Speed" value={speed} options={[["1", "1×"], ["2", "2×"], ["5", "5×"]]} onChange={setSpeed} />
        <label class="inline small wide"><input type="checkbox" checked={all} onChange={() => { setPlaying(false); setAll(!all); setAt(0); show(0); }} />all pauses</label>
        {onReload && <Button small icon="again" label="With what came since" onClick={onReload} />}
        <Button small icon="download" label="Download the recording" onClick={onSave} />
      </div>
      <div class="terminal played" ref={box} />
      <div class="status"><span role="status">{playing ? "playing" : at >= end && end > 0 ? "the end" : "paused"}</span>{!all && <span class="wide">pauses are cut to {PAUSE} s</span>}</div>
    </section>
  );
}

/** `1:04` */
function clock(seconds: number): string {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
