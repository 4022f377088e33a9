// Hints: which subject is newer than what is shown. All data is fetched by ordinary requests.
//
// One WebSocket a tab says the newest value of each subject that is watched; where there is none, a timer stands in.

import { effect, signal } from "@preact/signals";
import { reachable, Problem, socketAddress, Unreachable } from "./client.ts";
import { over, session, token } from "./session.ts";

type Hear = (hint: Record<string, unknown>) => void;

const watched = new Map<string, Set<Hear>>();
/** What is heard of though nobody sees the tab, and how often that is wanted. */
const kept = new Map<string, number>();
/** Is the service heard? */
export const live = signal<"live" | "timer" | "lost">("lost");

let socket: WebSocket | null = null;
let timer: ReturnType<typeof setInterval> | undefined;
let retry: ReturnType<typeof setTimeout> | undefined;
let wait = 250;
let dull = false;
/** It was heard before: what was shown then may be of jobs that are gone, of which nothing is said. */
let wasHeard = false;

/** Hears of a subject until the answer is called. */
export function watch(subject: string, hear: Hear): () => void {
  const set = watched.get(subject) ?? new Set();
  set.add(hear);
  watched.set(subject, set);
  tell();
  return () => {
    set.delete(hear);
    if (set.size === 0) watched.delete(subject);
    tell();
  };
}

/** A subject that is watched is heard of in a hidden tab too, until the answer is called. */
export function watchHidden(subject: string): () => void {
  kept.set(subject, (kept.get(subject) ?? 0) + 1);
  tell();
  return () => {
    const left = (kept.get(subject) ?? 1) - 1;
    if (left === 0) kept.delete(subject);
    else kept.set(subject, left);
    tell();
  };
}

function tell(): void {
  const subjects = [...watched.keys()].filter((subject) => !document.hidden || kept.has(subject));
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ watch: subjects }));
}

function subjectOf(hint: Record<string, unknown>): string | null {
  if ("events" in hint) return "events";
  if ("job" in hint) return `job:${String(hint["job"])}`;
  if ("output" in hint) return `output:${String(hint["output"])}`;
  return null;
}

function all(): void {
  for (const set of watched.values()) for (const hear of set) hear({});
}

async function connect(): Promise<void> {
  clearTimeout(retry);
  if (socket !== null || session.value == null || over.value) return;
  let url: URL;
  try {
    url = await socketAddress("/live");
  } catch (error) {
    // A service that has no hints is looked at by the clock.
    if (error instanceof Problem && error.status === 404) return tick();
    return again(error instanceof Unreachable);
  }
  const mine = new WebSocket(url, "procession.hints.v1");
  socket = mine;
  let opened = false;
  mine.onopen = () => {
    opened = true;
    wait = 250;
    dull = false;
    clearInterval(timer);
    timer = undefined;
    live.value = "live";
    reachable.value = { lost: null, last: Date.now() };
    // The service says what is newest of each subject when it is watched.
    tell();
    if (wasHeard) all();
    wasHeard = true;
  };
  mine.onmessage = ({ data }) => {
    const hint = JSON.parse(String(data));
    const subject = subjectOf(hint);
    if (subject !== null) for (const hear of watched.get(subject) ?? []) hear(hint);
  };
  mine.onclose = () => {
    if (socket === mine) socket = null;
    if (!opened) {
      if (dull) return tick();
      dull = true;
    }
    again(true);
  };
}

function again(lost: boolean): void {
  if (lost && live.value !== "timer") live.value = "lost";
  if (lost && reachable.value.lost === null) reachable.value = { ...reachable.value, lost: Date.now() };
  clearTimeout(retry);
  retry = setTimeout(() => void connect(), wait * (0.5 + Math.random()));
  wait = Math.min(wait * 2, 8000);
}

function tick(): void {
  live.value = "timer";
  timer ??= setInterval(() => {
    if (!document.hidden && session.value && !over.value) all();
  }, 1000);
}

/** Now, rather than when the next try is due. */
export function tryNow(): void {
  wait = 250;
  all();
  void connect();
}

document.addEventListener("visibilitychange", () => {
  tell();
  if (!document.hidden) tryNow();
});
window.addEventListener("online", tryNow);

effect(() => {
  const open = session.value != null && !over.value;
  void token.value;
  if (open) void connect();
  else {
    socket?.close();
    socket = null;
  }
});
