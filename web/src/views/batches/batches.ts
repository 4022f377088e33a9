// What a batch is in words and parts. PURE.

import { type Batch, type State, TERMINAL } from "../../api/model.ts";
import { count } from "../../state/format.ts";

/** What has ended first, as a bar is read. */
const ORDER: State[] = ["succeeded", "failed", "timed_out", "lost", "canceled", "stopping", "paused", "running", "starting", "queued"];

export interface Part {
  state: State;
  count: number;
  /** Of all of them, 0 to 1. */
  part: number;
}

export function parts(batch: Pick<Batch, "counts" | "total">): Part[] {
  return ORDER.map((state) => ({ state, count: batch.counts[state] ?? 0, part: (batch.counts[state] ?? 0) / batch.total })).filter((one) => one.count > 0);
}

export function ended(batch: Pick<Batch, "counts">): number {
  return TERMINAL.reduce((sum, state) => sum + (batch.counts[state] ?? 0), 0);
}

/** `312 of 500 ended, 2 failed, 10 running`. */
export function progress(batch: Pick<Batch, "counts" | "total" | "state">): string {
  const told = parts(batch).filter(({ state }) => state !== "succeeded" && state !== "queued").map((one) => `${count(one.count)} ${one.state.replace("_", " ")}`);
  const done = ended(batch);
  const first = done === batch.total ? (batch.total === 1 ? "the one job ended" : `all ${count(batch.total)} ended`) : `${count(done)} of ${count(batch.total)} ended`;
  return [first, ...told].join(", ");
}

/** Which entry a job is of: ids ascend in the order of the entries. */
export function keys(batch: Pick<Batch, "jobs">): (id: string) => string {
  const firsts = Object.entries(batch.jobs ?? {}).map(([key, of]) => ({ key, first: typeof of === "string" ? of : of.first })).sort((a, b) => (a.first < b.first ? -1 : 1));
  return (id) => firsts.findLast((one) => one.first <= id)?.key ?? "";
}

export const ON_FAILURE: Record<Batch["on_failure"], string> = { continue: "the others go on", cancel_queued: "none starts any more", stop_all: "all are stopped" };
