// The columns of the list that can be chosen; state, name and who are always there.

import { settings } from "../../state/settings.ts";

export type Column = "created" | "duration" | "cpu" | "memory" | "queue" | "priority" | "result";

export const COLUMNS: { key: Column; word: string; width: string }[] = [
  { key: "created", word: "Created", width: "w-time" }, { key: "duration", word: "Duration", width: "w-dur" }, { key: "cpu", word: "Processor", width: "w-cpu" }, { key: "memory", word: "Memory", width: "w-mem num" },
  { key: "queue", word: "Queue", width: "w-by" }, { key: "priority", word: "Priority", width: "w-mem num" }, { key: "result", word: "Result", width: "w-result" },
];

export function shown(column: Column): boolean {
  return settings.value.columns.split(",").includes(column);
}
