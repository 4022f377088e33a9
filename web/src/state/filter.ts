// The filters of a list and the address that has them. PURE.

import type { State } from "../api/model.ts";

export interface Filter {
  states: State[];
  labels: string[];
  name: string;
  queue: string;
  batch: string;
  schedule: string;
  node: string;
  by: string;
  after: string;
  before: string;
  order: "desc" | "asc";
}

export const EVERYTHING: Filter = { states: [], labels: [], name: "", queue: "", batch: "", schedule: "", node: "", by: "", after: "", before: "", order: "desc" };

/** What has one name, and is called so in the address and in the box. */
export const NAMED = ["queue", "batch", "schedule", "node", "by"] as const;

export const STATES: State[] = ["queued", "starting", "running", "paused", "stopping", "succeeded", "failed", "timed_out", "canceled", "lost"];

export function toAddress(filter: Filter): URLSearchParams {
  const out = new URLSearchParams();
  if (filter.states.length > 0) out.set("state", filter.states.join(","));
  if (filter.labels.length > 0) out.set("label", filter.labels.join(","));
  if (filter.name !== "") out.set("name", filter.name);
  for (const name of NAMED) if (filter[name] !== "") out.set(name, filter[name]);
  if (filter.after !== "") out.set("after", filter.after);
  if (filter.before !== "") out.set("before", filter.before);
  if (filter.order !== "desc") out.set("order", filter.order);
  return out;
}

export function fromAddress(query: URLSearchParams): Filter {
  const states = (query.get("state") ?? "").split(",").filter((word): word is State => (STATES as string[]).includes(word));
  return {
    states: [...new Set(states)],
    labels: cutSelector(query.get("label") ?? ""),
    name: query.get("name") ?? "",
    queue: query.get("queue") ?? "",
    batch: query.get("batch") ?? "",
    schedule: query.get("schedule") ?? "",
    node: query.get("node") ?? "",
    by: query.get("by") ?? "",
    after: moment(query.get("after")),
    before: moment(query.get("before")),
    order: query.get("order") === "asc" ? "asc" : "desc",
  };
}

function moment(text: string | null): string {
  return text !== null && !Number.isNaN(Date.parse(text)) ? text : "";
}

/** The requirements of a selector; a comma within brackets is no end. */
export function cutSelector(text: string): string[] {
  const out: string[] = [];
  let depth = 0;
  let word = "";
  for (const letter of text) {
    if (letter === "(") depth += 1;
    if (letter === ")") depth -= 1;
    if (letter === "," && depth === 0) {
      out.push(word.trim());
      word = "";
    } else word += letter;
  }
  out.push(word.trim());
  return out.filter(Boolean);
}

/** The filter as the API takes it, without the states. */
export function toQuery(filter: Filter): Record<string, string> {
  const out: Record<string, string> = {};
  if (filter.labels.length > 0) out["label_selector"] = filter.labels.join(",");
  if (filter.name !== "") out["name_prefix"] = filter.name;
  for (const name of NAMED) if (filter[name] !== "") out[name === "by" ? "created_by" : name] = filter[name];
  if (filter.after !== "") out["created_after"] = filter.after;
  if (filter.before !== "") out["created_before"] = filter.before;
  return out;
}

/** What somebody typed into the box: `team=web`, `!nightly`, `queue:default`, `schedule:nightly`, `by:token:ci`, `since:1h`, `before:06:00`; else a name. */
export function typed(filter: Filter, text: string, now: Date): Filter {
  const word = text.trim();
  if (word === "") return filter;
  const named = /^(name|queue|batch|schedule|node|by|label|since|after|before|created):\s*(.+)$/i.exec(word);
  const [kind, value] = named ? [named[1]!.toLowerCase(), named[2]!] : ["", word];
  if (kind === "queue" || kind === "batch" || kind === "schedule" || kind === "node" || kind === "by") return { ...filter, [kind]: value };
  if (kind === "since" || kind === "after" || kind === "created") return { ...filter, after: when(value, now) ?? filter.after };
  if (kind === "before") return { ...filter, before: when(value, now) ?? filter.before };
  if (kind === "label" || (kind === "" && /[=!]|\s(in|notin)\s*\(/.test(word))) return { ...filter, labels: [...new Set([...filter.labels, ...cutSelector(value)])] };
  return { ...filter, name: value };
}

/** `1h` ago, `06:00` today, or a moment. */
export function when(text: string, now: Date): string | null {
  const ago = /^([0-9]+)\s*(m|min|h|d)$/.exec(text);
  if (ago) return new Date(now.getTime() - Number(ago[1]) * { m: 60e3, min: 60e3, h: 3600e3, d: 86400e3 }[ago[2]! as "m"]).toISOString();
  const clock = /^([01]?[0-9]|2[0-3]):([0-5][0-9])$/.exec(text);
  if (clock) {
    const at = new Date(now);
    at.setHours(Number(clock[1]), Number(clock[2]), 0, 0);
    return at.toISOString();
  }
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : new Date(at).toISOString();
}
