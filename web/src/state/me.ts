// Who looks, and at which service.

import { signal } from "@preact/signals";
import { get, Problem, send } from "../api/client.ts";
import { type Info, reaches, type Scope, type Session } from "../api/model.ts";
import { ask, enter, forget, isRecalled, know, over, session, token } from "../api/session.ts";

export const info = signal<Info | null>(null);

/** May whoever looks do this? */
export function may(scope: Scope): boolean {
  return reaches(session.value?.scope, scope);
}

/** Is this the hub of a cluster? `undefined` until it has said so. */
export function isHub(): boolean | undefined {
  return info.value?.features.includes("nodes");
}

/** Finds out who one is: with what is kept, with what another tab has, or without anything. */
export async function whoAmI(): Promise<void> {
  if (token.value === null) await ask();
  const asked = token.value;
  try {
    know(await get<Session>("/session"));
    over.value = false;
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    // Somebody has signed in meanwhile.
    if (token.value !== asked) return;
    // What was kept is of no use any more.
    if ((session.value === undefined || isRecalled) && asked !== null) forget();
    session.value = null;
  }
}

/** Signs in by a one-time code or a token; says who one is then. */
export async function signIn(proof: { code: string } | { token: string }, stay: boolean): Promise<void> {
  const body = { ...proof, browser: browserName() };
  const before = token.value;
  token.value = null;
  try {
    const answer = await send("POST", "/session", { body });
    const { token: text, ...who } = (await answer.json()) as Session & { token: string };
    enter(text, stay);
    know(who);
    over.value = false;
  } catch (error) {
    token.value = before;
    throw error;
  }
}

export async function signOut(): Promise<void> {
  try {
    await send("DELETE", "/session");
  } catch {
    // It ends by itself; here it is forgotten in any case.
  }
  forget();
}

/** Takes no new jobs from now on, or takes them again. */
export async function setDraining(on: boolean): Promise<void> {
  await send(on ? "POST" : "DELETE", "/drain");
  await loadInfo();
}

function browserName(): string {
  const agent = navigator.userAgent;
  const name = /(Edg|OPR|Firefox|Chrome|Safari)\/([0-9]+)/.exec(agent);
  const system = /(Windows|Mac OS X|Android|iPhone|iPad|CrOS|Linux)/.exec(agent);
  const words: Record<string, string> = { Edg: "Edge", OPR: "Opera", "Mac OS X": "macOS", CrOS: "ChromeOS" };
  const of = (word: string | undefined): string => (word === undefined ? "" : (words[word] ?? word));
  return [name ? `${of(name[1])} ${name[2]}` : "a browser", system ? `on ${of(system[1])}` : ""].filter(Boolean).join(" ").slice(0, 120);
}

export async function loadInfo(): Promise<void> {
  try {
    info.value = await get<Info>("/info");
  } catch {
    // The frame does without.
  }
}
