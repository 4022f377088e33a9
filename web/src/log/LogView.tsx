// The output of a job: windows of it, search over all of it, and following.

import { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import { get, Problem, send, words } from "../api/client.ts";
import { type Job, isTerminal } from "../api/model.ts";
import { Button, copy, Menu, say, Segments } from "../parts/parts.tsx";
import { Icon } from "../parts/Icon.tsx";
import { change, settings } from "../state/settings.ts";
import { bytes as size, count } from "../state/format.ts";
import { hash, link } from "../router.ts";
import { downloads } from "./downloads.ts";
import { Errors, nextError } from "./errors.ts";
import { Hits } from "./find.ts";
import { Finder, type FindWish, search } from "./Finder.tsx";
import { GoTo } from "./GoTo.tsx";
import { LogRow } from "./LogRow.tsx";
import { fraction, type Goto, offsetAt, parseHash, ROW } from "./place.ts";
import { LogSource, type Which } from "./source.ts";
import { clock, since, type Times } from "./time.ts";
import { Viewport } from "./viewport.ts";
import { useKeys } from "./keys.ts";

function useDark(): boolean {
  const media = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, set] = useState(media.matches);
  useEffect(() => {
    const hear = (): void => set(media.matches);
    media.addEventListener("change", hear);
    return () => media.removeEventListener("change", hear);
  }, [media]);
  return settings.value.theme === "system" ? dark : settings.value.theme === "dark";
}

function sourceOf(id: string, which: Which, changed: (now?: boolean) => void): LogSource {
  const path = `/jobs/${id}/output`;
  return new LogSource(
    which,
    async (from, limit, signal) => {
      const query = { offset: from, limit_bytes: Math.max(0, limit), stream: which === "all" ? null : which };
      const answer = await send("GET", path, { query, headers: { Accept: "application/x-ndjson" }, signal });
      const number = (name: string): number => Number(answer.headers.get(name) ?? 0);
      return {
        first: number("Procession-First-Offset"), next: number("Procession-Next-Offset"),
        complete: answer.headers.get("Procession-Output-Complete") === "true", body: answer.body!,
      };
    },
    which !== "all" ? null : async (offset, signal) => (await get<{ line: number | null }>(`${path}/place`, { offset }, signal)).line,
    changed,
  );
}

/** At most one drawing a frame; `now`: what somebody waits for is in this one already. */
function useDraw(): [number, (now?: boolean) => void] {
  const [version, bump] = useReducer((n: number) => n + 1, 0);
  const frame = useRef(0);
  const draw = useCallback((now = false) => {
    if (now) return bump(0 as never);
    if (frame.current !== 0) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      bump(0 as never);
    });
  }, []);
  useEffect(() => () => cancelAnimationFrame(frame.current), []);
  return [version, draw];
}

type Range = { from: number; to: number };

export function LogView({ job, tip }: { job: Job; tip: { next: number; first: number; complete: boolean } }) {
  const [which, setWhich] = useState<Which>("all");
  const [raw, setRaw] = useState(false);
  const [, draw] = useDraw();
  const source = useMemo(() => sourceOf(job.id, which, draw), [job.id, which]);
  const port = useMemo(() => new Viewport(source, draw), [source]);
  const [wish, setWish] = useState<FindWish>({ text: "", regex: false, sameCase: false });
  const [hits, setHits] = useState<Hits>(() => new Hits());
  const [findProblem, setFindProblem] = useState("");
  const [current, setCurrent] = useState(-1);
  // What the address names, until something else is pointed at. It is drawn with the rows, and not before they are here.
  const pointed = useRef<Range | null>(null);
  const target = pointed.current;
  const [seen, setSeen] = useState<number | null>(null);
  const [asking, setAsking] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const findBox = useRef<HTMLInputElement>(null);
  const dark = useDark();
  const { wrap, logTimes, times } = settings.value;

  useEffect(() => () => source.close(), [source]);
  useEffect(() => () => port.close(), [port]);
  useLayoutEffect(() => source.extent(tip.first, tip.next, tip.complete), [source, tip.first, tip.next, tip.complete]);
  // A place that the job has not written yet, or that is not known yet to be written, is gone to once it is there.
  const waits = useRef<Range | null>(null);
  const aim = (): void => {
    if (waits.current === null || waits.current.from >= source.next) return;
    port.jump(waits.current.from, 0.3);
    waits.current = null;
  };
  const isOwn = useRef(false);
  useLayoutEffect(() => hash.subscribe((words) => {
    if (isOwn.current) return;
    pointed.current = waits.current = parseHash(words);
    aim();
    if (pointed.current === null) draw();
  }), [port]);
  useLayoutEffect(aim, [port, tip.next]);
  // What fills the screen is asked for at once, and before all that belongs to it.
  useLayoutEffect(() => {
    if (port.follow && source.next > source.first) source.hurry(source.next - 1);
  }, [port]);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => {
      port.height = box.current!.clientHeight;
      draw();
    });
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, [port]);

  // A wheel that is not heard in time would scroll the page.
  useEffect(() => {
    const element = box.current!;
    const wheel = (event: WheelEvent): void => {
      if (event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      port.scrollBy(event.deltaMode === 1 ? event.deltaY * ROW : event.deltaMode === 2 ? event.deltaY * port.height : event.deltaY);
    };
    element.addEventListener("wheel", wheel, { passive: false });
    const stop = touch(element, (by) => port.scrollBy(by));
    return () => {
      element.removeEventListener("wheel", wheel);
      stop();
    };
  }, [port]);

  useEffect(() => search(job.id, which, wish, () => source.next, (found, problem) => {
    setHits(found);
    setFindProblem(problem);
    draw();
  }), [job.id, which, wish]);

  // Where both are shown, one sees where standard error is.
  const errors = useMemo(() => (which === "all" ? new Errors(job.id, draw) : null), [job.id, which]);
  useEffect(() => () => errors?.close(), [errors]);
  const hasErrors = !isTerminal(job.state) || job.output.stderr_bytes > 0;
  useEffect(() => { if (hasErrors) errors?.look(source.next); });

  // What is selected is not taken away by what comes.
  useEffect(() => {
    const hear = (): void => {
      const selection = getSelection();
      if (selection && !selection.isCollapsed && port.follow && !source.complete && box.current?.contains(selection.anchorNode)) {
        port.follow = false;
        draw();
      }
    };
    document.addEventListener("selectionchange", hear);
    return () => document.removeEventListener("selectionchange", hear);
  }, [port]);

  const visible = port.rows();
  useLayoutEffect(() => {
    if (port.isStale) return;
    const heights = Array.from(inner.current!.children, (child) => (child as HTMLElement).offsetHeight || ROW);
    if (heights.length !== visible.rows.length) return;
    const top = port.settle(heights);
    inner.current!.style.transform = `translateY(${Math.round(top)}px)`;
  });
  useEffect(() => {
    if (port.follow) setSeen(null);
    else setSeen((old) => old ?? source.next);
  }, [port.follow]);

  const goto = (hit: number): void => {
    const found = hits.list[hit];
    if (!found) return;
    setCurrent(hit);
    port.jump(found.offset, 0.35);
  };
  const step = (by: 1 | -1): void => {
    const from = hits.list[current]?.offset ?? (by === 1 ? port.anchor.offset - 1 : port.anchor.offset);
    goto(hits.step(from, by));
  };
  const point = (offset: number, extend: boolean): void => {
    const range = extend && target ? { from: Math.min(target.from, offset), to: Math.max(target.from, offset) } : { from: offset, to: offset };
    pointed.current = range;
    port.follow = false;
    history.replaceState(null, "", `${location.pathname}${location.search}#o${range.from}${range.to > range.from ? `-o${range.to}` : ""}`);
    // One is there already.
    isOwn.current = true;
    hash.value = location.hash;
    isOwn.current = false;
    draw();
  };
  const go = async (wish: Goto): Promise<void> => {
    if (wish.kind === "byte") return port.jump(wish.offset);
    if (wish.kind === "part") return wish.part === 1 ? port.toEnd() : port.jump(offsetAt(wish.part, source));
    try {
      const found = await get<{ offset: number }>(`/jobs/${job.id}/output/place`, wish.kind === "line" ? { line: Math.max(1, wish.line) } : { at: wish.at });
      pointed.current = { from: found.offset, to: found.offset };
      port.jump(found.offset, 0.3);
    } catch (error) {
      say(error instanceof Problem && error.status === 404 ? "This service cannot find lines and times" : words(error), true);
    }
  };
  const ask = (): void => setAsking(true);
  const toError = (): void => {
    const from = target !== null && visible.rows.some((row) => row.offset === target.from) ? target.from : port.anchor.offset - 1;
    const row = visible.rows.find((one) => one.offset <= from && from < one.end);
    nextError(job.id, row?.end ?? from + 1).then((offset) => {
      if (offset === null) return say("No line of standard error below");
      pointed.current = { from: offset, to: offset };
      port.jump(offset, 0.3);
    }, (error: unknown) => say(words(error), true));
  };
  const cycle = (): void => change({ logTimes: ({ off: "clock", clock: "start", start: "before", before: "off" } as const)[logTimes] });
  const keys = useKeys({ port, step, ask, cycle, nextError: toError, find: () => findBox.current?.focus(), streams: () => setWhich(({ all: "stdout", stdout: "stderr", stderr: "all" } as const)[which]), download: () => downloads(job)[0]!.run() });

  const last = target === null ? undefined : visible.rows.find((row) => row.offset <= target.to && row.end > target.to);
  const marked = target !== null && last !== undefined ? { from: target.from, end: last.end } : null;
  const fresh = seen !== null && source.next > seen ? source.next - seen : 0;
  const line = visible.lines[visible.rows.findIndex((row) => row.offset === (target?.from ?? port.anchor.offset))] ?? null;
  return (
    <section class={`card log ${wrap ? "wrapped" : ""} t-${logTimes}`} aria-label="Output" onKeyDown={keys}>
      <div class="tools">
        <Segments<Which> label="Streams" value={which} options={[["all", "Both"], ["stdout", "Out"], ["stderr", "Err"]]} onChange={setWhich} />
        <Finder box={findBox} wish={wish} hits={hits} problem={findProblem} current={current} extent={source} onWish={(next) => { setWish(next); setCurrent(-1); }} onStep={step} />
        <Button small class="wide" onClick={ask}>Go to …</Button>
        <Button small icon="wrap" class="wide" label="Wrap lines" pressed={wrap} onClick={() => change({ wrap: !wrap })} />
        <Button small icon="clock" class="wide" label={`Times: ${TIMES[logTimes]}`} pressed={logTimes !== "off"} onClick={cycle} />
        <Menu small icon="download" label="Download" items={downloads(job, marked)} />
        <Button small icon="follow" pressed={port.follow} onClick={() => { if (port.follow) { port.follow = false; draw(); } else port.toEnd(); }}>Follow</Button>
      </div>
      <div class="lines" ref={box} role="log" aria-live="off" aria-label="Lines of the output" tabIndex={0} onClick={(event) => {
        const gutter = event.target instanceof Element ? event.target.closest(".g") : null;
        const row = gutter?.closest<HTMLElement>("[data-o]");
        if (!row) return;
        event.preventDefault();
        point(Number(row.dataset["o"]), event.shiftKey);
      }}>
        <div class="rows" ref={inner} style={{ "--gutter": gutter(source.next) }}>
          {visible.rows.map((row, index) => {
            const { marks, first } = wish.text === "" ? { marks: [], first: 0 } : hits.within(row);
            const before = visible.rows[index - 1];
            return (
              <LogRow key={row.offset} row={row} line={visible.lines[index] ?? null} goesOn={before !== undefined && before.kind === "line" && !before.closed} time={timeOf(logTimes, row.at, job.started_at ?? job.created_at, before?.at ?? "", times === "utc")}
                target={target !== null && row.offset >= target.from - (row.end - row.offset) + 1 && row.offset <= target.to} marks={marks} firstHit={first} currentHit={current} raw={raw} dark={dark} />
            );
          })}
        </div>
        {source.next === source.first && <p class="nothing faint">{isTerminal(job.state) || source.complete ? "It wrote nothing." : "Nothing yet."}</p>}
        {visible.failed !== null && <p class="nothing"><span class="muted">{words(visible.failed)} </span><Button small icon="again" onClick={() => source.retry()}>Try again</Button></p>}
        <Ruler port={port} hits={wish.text === "" ? null : hits} errors={errors?.hits ?? null} />
        {fresh > 0 && <div class="fresh"><button type="button" class="pill" onClick={() => port.toEnd()}><Icon name="follow" />{size(fresh)} new</button></div>}
      </div>
      <div class="status">
        <span>{line === null ? `Byte ${count(target?.from ?? port.anchor.offset)}` : `Line ${count(line)}`}</span>
        {line !== null && <span class="wide">byte {count(target?.from ?? port.anchor.offset)}</span>}
        <span class="wide">{size(job.output.stdout_bytes)} out, {size(job.output.stderr_bytes)} err{job.output.dropped_bytes > 0 ? `, ${size(job.output.dropped_bytes)} dropped` : ""}</span>
        <span class="grow" />
        <label class="wide"><input type="checkbox" checked={raw} onChange={() => setRaw(!raw)} /> all states of a line</label>
        <button type="button" class="wide textual" onClick={() => void copy(`${link(`jobs/${job.id}`)}#o${target?.from ?? port.anchor.offset}${target && target.to > target.from ? `-o${target.to}` : ""}`, "the link")}>link to this line <Icon name="copy" /></button>
      </div>
      <Spoken following={port.follow} next={source.next} />
      {asking && <GoTo day={new Date(job.started_at ?? job.created_at)} onGo={(to) => void go(to)} onClose={() => setAsking(false)} />}
    </section>
  );
}

/** As wide as the numbers of so many bytes may be; it grows twice, and not with each digit. */
function gutter(next: number): string {
  return next < 10_000 ? "58px" : next < 10_000_000 ? "76px" : "96px";
}

const TIMES: Record<Times, string> = { off: "off", clock: "of day", start: "since the start", before: "since the line before" };

function timeOf(mode: Times, at: string, start: string, before: string, utc: boolean): string | null {
  if (mode === "off") return null;
  if (mode === "clock") return clock(at, utc);
  return mode === "start" ? since(start, at) : before === "" ? "" : since(before, at);
}

/** Where one is, where the hits and standard error are; it can be dragged. */
function Ruler({ port, hits, errors }: { port: Viewport; hits: Hits | null; errors: Hits | null }) {
  const { source } = port;
  const at = port.follow ? 1 : fraction(port.anchor.offset, source);
  const drag = (event: PointerEvent): void => {
    const element = event.currentTarget as HTMLElement;
    if (event.type === "pointerdown") element.setPointerCapture(event.pointerId);
    else if (!element.hasPointerCapture(event.pointerId)) return;
    event.preventDefault();
    const { top, height } = element.getBoundingClientRect();
    const part = (event.clientY - top) / height;
    if (part >= 0.995) port.toEnd();
    else port.jump(offsetAt(part, source));
  };
  return (
    <div class="ruler" role="scrollbar" aria-orientation="vertical" aria-label="Place in the output" aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(at * 100)} onPointerDown={drag} onPointerMove={drag}>
      {errors?.ruler(source.first, source.next, 300).map((step) => <i key={`e${step}`} class="err" style={{ top: `${step / 3}%` }} />)}
      {hits?.ruler(source.first, source.next, 300).map((step) => <i key={step} class="hit" style={{ top: `${step / 3}%` }} />)}
      <span class="view" style={{ top: `calc(${at * 100}% - ${at * 22}px)` }} />
    </div>
  );
}

/** For screen readers: rows are not read by themselves. */
function Spoken({ following, next }: { following: boolean; next: number }) {
  const [text, setText] = useState("");
  const said = useRef(next);
  const latest = useRef(next);
  latest.current = next;
  useEffect(() => {
    if (!following) return;
    const timer = setInterval(() => {
      if (latest.current > said.current) setText(`${size(latest.current - said.current)} of new output`);
      said.current = latest.current;
    }, 5000);
    return () => clearInterval(timer);
  }, [following]);
  return <p class="spoken" role="status" aria-live="polite">{text}</p>;
}

/** One finger scrolls, and goes on for a moment after it has left. */
function touch(element: HTMLElement, scroll: (by: number) => void): () => void {
  let last: { y: number; time: number } | null = null;
  let speed = 0;
  let frame = 0;
  const start = (event: TouchEvent): void => {
    cancelAnimationFrame(frame);
    last = event.touches.length === 1 ? { y: event.touches[0]!.clientY, time: event.timeStamp } : null;
    speed = 0;
  };
  const moved = (event: TouchEvent): void => {
    if (!last || event.touches.length !== 1) return;
    const y = event.touches[0]!.clientY;
    const by = last.y - y;
    speed = by / Math.max(1, event.timeStamp - last.time);
    last = { y, time: event.timeStamp };
    scroll(by);
    event.preventDefault();
  };
  const end = (): void => {
    last = null;
    const glide = (): void => {
      speed *= 0.95;
      if (Math.abs(speed) < 0.02) return;
      scroll(speed * 16);
      frame = requestAnimationFrame(glide);
    };
    glide();
  };
  element.addEventListener("touchstart", start, { passive: true });
  element.addEventListener("touchmove", moved, { passive: false });
  element.addEventListener("touchend", end, { passive: true });
  return () => {
    cancelAnimationFrame(frame);
    element.removeEventListener("touchstart", start);
    element.removeEventListener("touchmove", moved);
    element.removeEventListener("touchend", end);
  };
}
