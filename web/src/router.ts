// The table of contents: which address is which view.

import { computed, signal } from "@preact/signals";

export type View = "overview" | "jobs" | "job" | "run" | "queues" | "batches" | "batch" | "schedules" | "schedule" | "nodes" | "events" | "access" | "checkup" | "settings" | "signin" | "nowhere";

export interface Place {
  view: View;
  id: string;
  query: URLSearchParams;
}

const BASE = new URL(document.baseURI);
const VIEWS: Record<string, View> = { "": "overview", jobs: "jobs", run: "run", queues: "queues", batches: "batches", schedules: "schedules", nodes: "nodes", events: "events", access: "access", checkup: "checkup", settings: "settings", signin: "signin" };

function read(): Place {
  const path = location.pathname.startsWith(BASE.pathname) ? location.pathname.slice(BASE.pathname.length) : "";
  const query = new URLSearchParams(location.search);
  const job = /^jobs\/([0-9a-f-]{1,64})$/.exec(path);
  if (job) return { view: "job", id: job[1]!, query };
  const batch = /^batches\/([0-9a-f-]{1,64})$/.exec(path);
  if (batch) return { view: "batch", id: batch[1]!, query };
  const schedule = /^schedules\/([-A-Za-z0-9_.]{1,63})$/.exec(path);
  if (schedule) return { view: "schedule", id: schedule[1]!, query };
  return { view: VIEWS[path] ?? "nowhere", id: "", query };
}

export const place = signal<Place>(read());
/** Apart: only the log looks at it, and a jump in a log must not draw everything else. */
export const hash = signal(location.hash);
export const view = computed(() => place.value.view);

/** The address of a view, for links. */
export function link(path: string, query?: URLSearchParams | Record<string, string>): string {
  const search = new URLSearchParams(query).toString();
  return new URL(search === "" ? path : `${path}?${search}`, BASE).href;
}

export function go(href: string, how: "push" | "replace" = "push"): void {
  if (how === "push") history.pushState(null, "", href);
  else history.replaceState(history.state, "", href);
  moved();
}

/** Another query for the present view. */
export function requery(query: URLSearchParams, how: "push" | "replace" = "push"): void {
  const search = query.toString();
  go(`${location.pathname}${search === "" ? "" : `?${search}`}${location.hash}`, how);
}

let address = location.pathname + location.search;
function moved(): void {
  hash.value = location.hash;
  const now = location.pathname + location.search;
  if (now === address) return;
  address = now;
  place.value = read();
}
window.addEventListener("popstate", moved);
window.addEventListener("hashchange", moved);

// Links of the page are followed without loading it again.
document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = event.target instanceof Element ? event.target.closest("a") : null;
  if (!anchor || anchor.target !== "" || anchor.hasAttribute("download") || !anchor.href.startsWith(BASE.href)) return;
  if (anchor.pathname.includes("/assets/")) return;
  event.preventDefault();
  go(anchor.href);
});
