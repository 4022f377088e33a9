// What an event is about: where it is shown, and its name. PURE.

import type { Event_ } from "../api/model.ts";

export interface Subject {
  path: string;
  word: string;
}

/** A job's id is a subject by itself; of others the kind comes first. */
export function subjectOf(event: Pick<Event_, "subject" | "data">): Subject {
  const { subject, data } = event;
  const cut = subject.indexOf("/");
  const [kind, name] = cut < 0 ? ["job", subject] : [subject.slice(0, cut), subject.slice(cut + 1)];
  const short = data.name ?? `${name.slice(0, 8)}…${name.slice(-4)}`;
  switch (kind) {
    case "job": return { path: `jobs/${name}`, word: short };
    case "batch": return { path: `batches/${name}`, word: short };
    case "schedule": return { path: `schedules/${name}`, word: name };
    case "queue": return { path: "queues", word: name };
    default: return { path: "events", word: subject };
  }
}

/** The type in words; that of a job is said by itself. */
export function typeWords(type: string): string {
  return type.replace(/^job\./, "").replaceAll(/[._]/g, " ");
}
