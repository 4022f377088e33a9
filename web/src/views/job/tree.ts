// Processes as a tree by parent. PURE.

import type { ProcessInfo } from "../../api/model.ts";

export interface Branch {
  info: ProcessInfo;
  cores: number | null;
  /** The lines that lead to it. */
  lead: string;
  /** Its parent is none of the job's, and it is not the first. */
  apart: boolean;
}

export function tree(processes: ProcessInfo[], cores: (one: ProcessInfo) => number | null): Branch[] {
  const pids = new Set(processes.map((one) => one.pid));
  const children = new Map<number, ProcessInfo[]>();
  const roots: ProcessInfo[] = [];
  for (const one of [...processes].sort((a, b) => a.pid - b.pid)) {
    if (pids.has(one.ppid) && one.ppid !== one.pid) children.set(one.ppid, [...(children.get(one.ppid) ?? []), one]);
    else roots.push(one);
  }
  const out: Branch[] = [];
  const seen = new Set<number>();
  const walk = (one: ProcessInfo, lead: string, below: string, apart: boolean): void => {
    if (seen.has(one.pid)) return;
    seen.add(one.pid);
    out.push({ info: one, cores: cores(one), lead, apart });
    const mine = children.get(one.pid) ?? [];
    mine.forEach((child, i) => {
      const last = i === mine.length - 1;
      walk(child, `${below}${last ? "└ " : "├ "}`, `${below}${last ? "  " : "│ "}`, false);
    });
  };
  roots.forEach((root, i) => walk(root, "", "", i > 0));
  // Whoever is left is in a ring, which only a look between two moments can show.
  for (const one of processes) if (!seen.has(one.pid)) walk(one, "", "", true);
  return out;
}
