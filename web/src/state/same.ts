// The same job by other means. PURE.

import { duration, quote } from "./format.ts";

export interface Submission {
  command?: string[];
  script?: string;
  name?: string | null;
  labels?: Record<string, string>;
  [field: string]: unknown;
}

export function asJson(submission: Submission): string {
  return JSON.stringify(submission, null, 2);
}

export function asCurl(submission: Submission): string {
  return ["curl -sS \\", "  -H \"Authorization: Bearer $TOKEN\" \\", "  -H 'Content-Type: application/json' \\", `  -d ${quote(JSON.stringify(submission))} \\`, "  http://127.0.0.1:8080/jobs"].join("\n");
}

/** As a command line; what has no flag of its own goes by a file. */
export function asProcession(submission: Submission): string {
  const words: string[] = ["procession run -d"];
  const rest: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(submission)) {
    if (value === null || value === undefined || key === "command" || key === "script") continue;
    if (key === "name") words.push(`--name ${quote(String(value))}`);
    else if (key === "labels") for (const [label, text] of Object.entries(value as Record<string, string>)) words.push(`-l ${quote(`${label}=${text}`)}`);
    else if (key === "cwd") words.push(`-C ${quote(String(value))}`);
    else if (key === "env") for (const [name, text] of Object.entries(value as Record<string, string>)) words.push(`-e ${quote(`${name}=${text}`)}`);
    else if (key === "secret_env") for (const name of Object.keys(value as object)) words.push(`--secret-env ${quote(name)}`);
    else if (key === "timeout_seconds") words.push(`--timeout ${quote(duration(value as number).replaceAll(" ", "").replaceAll("min", "m"))}`);
    else if (key === "template") words.push(`--template ${quote(String(value))}`);
    else if (key === "params") for (const [name, text] of Object.entries(value as Record<string, unknown>)) words.push(`--param ${quote(`${name}=${String(text)}`)}`);
    else if (key === "user") words.push(`--user ${quote(String(value))}`);
    else rest[key] = value;
  }
  if (submission["template"] !== undefined) return words.join(" \\\n  ");
  const tail = submission.command ? `-- ${submission.command.map(quote).join(" ")}` : `--script ${quote(submission.script ?? "")}`;
  if (Object.keys(rest).length > 0) return `procession run -d -f - <<'EOF'\n${asJson(submission)}\nEOF`;
  return [...words, tail].join(" \\\n  ");
}
