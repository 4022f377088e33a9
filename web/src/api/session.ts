// The session of this browser: where it is kept, and how tabs hear of it.
//
// It is a token in web storage, which belongs to this origin alone; nothing is sent by itself. A new tab asks the
// others; with "stay signed in" the token is kept where a restart of the browser finds it.

import { signal } from "@preact/signals";
import type { Session } from "./model.ts";

const KEY = "procession.session";

/** What goes into `Authorization`; nothing where the service asks for nothing. */
export const token = signal<string | null>(stored());

/** Who that is; `undefined` until the service has said it. */
export const session = signal<Session | null | undefined>(undefined);

/** It was good, and is no longer. */
export const over = signal(false);

const channel = new BroadcastChannel("procession");

function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Another session from now on, in this tab and the others. */
export function enter(text: string, stay: boolean): void {
  keep(text, stay);
  channel.postMessage({ kind: "session", token: text, stay });
}

function keep(text: string, stay: boolean): void {
  try {
    sessionStorage.setItem(KEY, text);
    if (stay) localStorage.setItem(KEY, text);
    else localStorage.removeItem(KEY);
  } catch {
    // Without storage it lasts as long as the tab.
  }
  token.value = text;
  over.value = false;
}

/** Nothing is kept any more. */
export function forget(): void {
  drop();
  session.value = null;
  channel.postMessage({ kind: "out" });
}

function drop(): void {
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  } catch {
    // There was nothing to remove.
  }
  token.value = null;
}

/** The service does not know the session any more. */
export function ended(): void {
  if (session.value) over.value = true;
}

// A tab with a session holds a lock, so that a new one knows whether there is anybody to ask. Only in a secure context.
const locks = globalThis.navigator?.locks as LockManager | undefined;
let release: (() => void) | null = null;

token.subscribe((text) => {
  if (text === null) {
    release?.();
    release = null;
  } else if (release === null) {
    const held = new Promise<void>((resolve) => { release = resolve; });
    void locks?.request(KEY, { mode: "shared" }, () => held);
  }
});

async function othersHave(): Promise<boolean> {
  return (await locks?.query())?.held?.some(({ name }) => name === KEY) ?? false;
}

/** Asks the other tabs for theirs: for a moment, or longer if one of them has it. */
export async function ask(): Promise<string | null> {
  const patience = (await othersHave()) ? 2000 : 150;
  return new Promise((resolve) => {
    const wait = setTimeout(() => done(null), patience);
    const hear = ({ data }: MessageEvent): void => {
      if (data?.kind === "session" && typeof data.token === "string") done(data.token);
    };
    const done = (text: string | null): void => {
      clearTimeout(wait);
      channel.removeEventListener("message", hear);
      if (text !== null) keep(text, false);
      resolve(text);
    };
    channel.addEventListener("message", hear);
    channel.postMessage({ kind: "ask" });
  });
}

channel.addEventListener("message", ({ data }) => {
  if (data?.kind === "ask" && token.value !== null && session.value && !over.value) {
    channel.postMessage({ kind: "session", token: token.value, stay: false });
  } else if (data?.kind === "session" && typeof data.token === "string" && (over.value || session.value === null)) {
    keep(data.token, data.stay === true);
    changed.value += 1;
  } else if (data?.kind === "out") {
    drop();
    session.value = null;
  }
});

/** Grows when another tab has signed in for this one too. */
export const changed = signal(0);
