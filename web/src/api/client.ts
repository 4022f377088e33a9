// Requests to the service: one way in, one kind of error.

import { signal } from "@preact/signals";
import { ended, token } from "./session.ts";
import type { Violation } from "./model.ts";

/** The root of the API, whatever prefix a proxy has put before it. */
export const ROOT = new URL("..", document.baseURI);

export class Problem extends Error {
  constructor(readonly status: number, readonly code: string, readonly detail: string, readonly errors: Violation[], readonly requestId: string, readonly headers: Headers | null = null, /** With `count_differs`: so many jobs match. */ readonly matched: number | null = null) {
    super(detail);
  }
}

/** The service did not answer. */
export class Unreachable extends Error {}

/** When the service last answered, and since when it has not. */
export const reachable = signal<{ lost: number | null; last: number }>({ lost: null, last: Date.now() });

/** How far the service's clock is ahead of this one, in ms. */
export const skew = signal(0);

export interface Options {
  query?: Record<string, string | number | boolean | null | undefined>;
  body?: unknown;
  type?: string;
  raw?: BodyInit;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export function address(path: string, query: Options["query"] = {}): URL {
  const url = new URL(path.replace(/^\//, ""), ROOT);
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
  return url;
}

/** Sends a request; what is no success is thrown. */
export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (token.value !== null) headers.set("Authorization", `Bearer ${token.value}`);
  const request: RequestInit = { method, headers, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };
  if (options.signal) request.signal = options.signal;
  if (options.raw !== undefined) request.body = options.raw;
  else if (options.body !== undefined) {
    headers.set("Content-Type", options.type ?? "application/json");
    request.body = JSON.stringify(options.body);
  }
  let response: Response;
  try {
    response = await fetch(address(path, options.query), request);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    if (reachable.value.lost === null) reachable.value = { ...reachable.value, lost: Date.now() };
    throw new Unreachable("the service does not answer");
  }
  reachable.value = { lost: null, last: Date.now() };
  const date = Date.parse(response.headers.get("Date") ?? "");
  // A header has whole seconds: what is less than two is no difference.
  if (!Number.isNaN(date)) skew.value = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  if (response.ok || response.status === 304) return response;
  const problem = await problemOf(response);
  if (response.status === 401) ended();
  throw problem;
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const json = await response.json();
    return new Problem(response.status, String(json.code), String(json.detail), json.errors ?? [], String(json.request_id ?? ""), response.headers, typeof json.matched === "number" ? json.matched : null);
  } catch {
    return new Problem(response.status, "unreadable", `the answer ${response.status} came from something in between`, [], "");
  }
}

export async function get<T>(path: string, query: Options["query"] = {}, signal?: AbortSignal): Promise<T> {
  const response = await send("GET", path, signal ? { query, signal } : { query });
  return (await response.json()) as T;
}

/** Once more, after a moment, for as long as nobody answers, which `lost` hears of: only for what is safe to repeat. */
export async function sendThrough(method: string, path: string, options: Options = {}, lost: () => void = () => undefined): Promise<Response> {
  let wait = 250;
  for (let tries = 0; ; tries++) {
    try {
      return await send(method, path, options);
    } catch (error) {
      if (!(error instanceof Unreachable) || tries >= 12) throw error;
      lost();
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
      wait = Math.min(wait * 2, 8000);
    }
  }
}

/** A key that makes repeats of a request the same request. */
export function key(): Record<string, string> {
  return { "Idempotency-Key": crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("") };
}

/** A word for one use in an address, for what cannot send a header. */
export async function ticket(path: string): Promise<string> {
  const response = await send("POST", "/session/tickets", { body: { path } });
  return (await response.json()).ticket;
}

/** The address of a WebSocket, with a ticket. */
export async function socketAddress(path: string, query: Options["query"] = {}): Promise<URL> {
  const url = address(path, { ...query, ticket: token.value === null ? null : await ticket(path) });
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

/** Has the browser save what is at a path, under this name or the one that it has. */
export async function download(path: string, name: string | null, query: Options["query"] = {}): Promise<void> {
  const url = address(path, { ...query, download: name, ticket: token.value === null ? null : await ticket(path) });
  const link = document.createElement("a");
  link.href = url.href;
  link.rel = "noreferrer";
  link.click();
}

export function words(error: unknown): string {
  if (error instanceof Problem) return error.detail;
  if (error instanceof Unreachable) return "The service does not answer.";
  return error instanceof Error ? error.message : String(error);
}
