// What of a log can be saved: everything that the service has, without loading it here.

import { address, download, ticket, words } from "../api/client.ts";
import { token } from "../api/session.ts";
import type { Job } from "../api/model.ts";
import { say } from "../parts/parts.tsx";

/** `lines`: the bytes of those that are marked. */
export function downloads(job: Job, lines: { from: number; end: number } | null = null): { key: string; word: string; run: () => void }[] {
  const name = (job.name ?? job.id).replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[.-]+/, "") || job.id;
  const save = (path: string, file: string, query: Record<string, string> = {}) => () => {
    download(`/jobs/${job.id}/output${path}`, `${name}${file}`, query).catch((error: unknown) => say(words(error), true));
  };
  return [
    { key: "both", word: "Both streams", run: save("", ".log") },
    { key: "times", word: "Both, with times", run: save("", ".times.log", { timestamps: "true" }) },
    { key: "stdout", word: "Standard output", run: save("/stdout", ".stdout.log") },
    ...(lines ? [{ key: "lines", word: "The marked lines", run: save("", ".lines.log", { offset: String(lines.from), limit_bytes: String(lines.end - lines.from) }) }] : []),
    { key: "stderr", word: "Standard error", run: save("/stderr", ".stderr.log") },
    { key: "plain", word: "As plain text, in a tab", run: () => { plain(`/jobs/${job.id}/output`).catch((error: unknown) => say(words(error), true)); } },
  ];
}

/** The words alone, as the browser shows a text: to search, to print, to be read out. */
async function plain(path: string): Promise<void> {
  const url = address(path, { ticket: token.value === null ? null : await ticket(path) });
  window.open(url.href, "_blank", "noopener,noreferrer");
}
