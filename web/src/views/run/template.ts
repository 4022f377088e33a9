// The form of a template: its parameters as fields, and what is sent. PURE.

import type { Template, Violation } from "../../api/model.ts";
import type { Submission } from "../../state/same.ts";

export interface Parameter {
  name: string;
  kind: "integer" | "choice" | "path" | "text";
  /** What is taken, in words. */
  hint: string;
  choices: string[];
  /** What an empty field begins with. */
  first: string;
}

interface Schema {
  type?: string;
  minimum?: number;
  maximum?: number;
  enum?: string[];
  pattern?: string;
  "x-beneath"?: string;
}

/** The parameters in the order of the command. What is not understood is a text. */
export function parameters(template: Template): Parameter[] {
  const schema = template.params as { properties?: Record<string, Schema>; required?: string[] };
  const properties = schema.properties ?? {};
  const names = [...(schema.required ?? []), ...Object.keys(properties).filter((name) => !schema.required?.includes(name))];
  return names.map((name) => parameter(name, properties[name] ?? {}));
}

function parameter(name: string, schema: Schema): Parameter {
  const plain = { name, choices: [], first: "" };
  if (schema.type === "integer") return { ...plain, kind: "integer", hint: `a whole number from ${schema.minimum} to ${schema.maximum}` };
  if (schema.enum) return { name, kind: "choice", hint: "", choices: schema.enum, first: schema.enum.length === 1 ? schema.enum[0]! : "" };
  if (schema["x-beneath"] !== undefined) return { ...plain, kind: "path", hint: `a path beneath ${schema["x-beneath"]}`, first: `${schema["x-beneath"]}/` };
  const pattern = /^\^\(\?:(.*)\)\$$/s.exec(schema.pattern ?? "")?.[1] ?? schema.pattern;
  return { ...plain, kind: "text", hint: pattern === undefined ? "" : `matches ${pattern}` };
}

/** What is sent, and what cannot be. */
export function submissionOf(template: Template, values: Record<string, string>, name: string, labels: string): { body: Submission; errors: Record<string, string> } {
  const errors: Record<string, string> = {};
  const params: Record<string, string | number> = {};
  for (const one of parameters(template)) {
    const value = values[one.name] ?? one.first;
    if (one.kind === "integer") {
      if (!/^-?[0-9]+$/.test(value.trim())) errors[one.name] = one.hint;
      else params[one.name] = Number(value.trim());
    } else if (value === "") errors[one.name] = one.kind === "choice" ? "choose one" : "must be given";
    else params[one.name] = value;
  }
  const body: Submission = { template: template.name, params };
  if (name.trim() !== "") body.name = name.trim();
  const words = labels.split(/[,\s]+/).filter(Boolean);
  if (words.length > 0) {
    body.labels = {};
    for (const word of words) {
      const [key, ...rest] = word.split("=");
      if (!key || !word.includes("=")) errors["labels"] = `“${word}” is no key=value`;
      else body.labels[key] = rest.join("=");
    }
  }
  return { body, errors };
}

/** Each mistake at its parameter; what has none goes under "". */
export function placedAt(violations: Violation[], template: Template): Record<string, string> {
  const known = new Set([...parameters(template).map((one) => one.name), "name", "labels"]);
  const out: Record<string, string> = {};
  for (const { pointer, detail } of violations) {
    const steps = (pointer ?? "").split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    const field = steps[0] === "params" ? (steps[1] ?? "") : (steps[0] ?? "");
    const place = known.has(field) ? field : "";
    const words = place === "" ? `${pointer ?? ""}: ${detail}` : detail;
    out[place] = out[place] === undefined ? words : `${out[place]}; ${words}`;
  }
  return out;
}

/** The command as it would run, as far as it is known. */
export function commandOf(template: Template, values: Record<string, string>): string[] {
  const all = new Map(parameters(template).map((one) => [one.name, values[one.name] ?? one.first]));
  return template.command.map((word) => {
    const name = /^\{(.+)\}$/.exec(word)?.[1];
    const value = name === undefined ? undefined : all.get(name);
    return value === undefined || value === "" ? word : value;
  });
}
