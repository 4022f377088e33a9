// The session of this browser: where it is kept, and how tabs hear of it.
//
// It is a token in web storage, which belongs to this origin alone; nothing is sent by itself. A new tab asks the
// others; with "stay signed in" the token is kept where a restart of the browser finds it.

import { signal } from "@preact/signals";
import type { Session } from "./model.ts";

const KEY = "procession.session";
/** Who that is: nothing that grants anything, so that the page need not wait for the service to say it again. */
const WHO = "procession.who";

/** What goes into `Authorization`; nothing where the service asks for nothing. */
export const token = signal<string | null>(stored());

/** Who that is; `undefined` until the service has said it. What it said last is taken for true until it says otherwise. */
export const session = signal<Session | null | undefined>(recalled());

/** The service has not said yet that it knows the session. */
export let isRecalled = session.peek() !== undefined;

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

function recalled(): Session | undefined {
  // A code is about to be used, or there is nothing to sign in with.
  if (token.peek() === null || location.hash.startsWith("#code=")) return undefined;
  try {
    return JSON.parse(sessionStorage.getItem(WHO) ?? localStorage.getItem(WHO) ?? "") as Session;
  } catch {
    return undefined;
  }
}

/** The service has said who that is. */
export function know(who: Session): void {
  isRecalled = false;
  session.value = who;
  if (token.value === null) return;
  try {
    const text = JSON.stringify(who);
    sessionStorage.setItem(WHO, text);
    if (localStorage.getItem(KEY) !== null) localStorage.setItem(WHO, text);
  } catch {
    // It is asked for again.
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
    // It may be somebody else's.
    sessionStorage.removeItem(WHO);
    localStorage.removeItem(WHO);
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
    for (const key of [KEY, WHO]) {
      sessionStorage.removeItem(key);
      localStorage.removeItem(key);
    }
  } catch {
    // There was nothing to remove.
  }
  token.value = null;
}

/** The service does not know the session any more. */
export function ended(): void {
  // What was kept is of no use: one is asked to sign in as if there had been nothing.
  if (session.value && !isRecalled) over.value = true;
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
