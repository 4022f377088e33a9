// What a node of the cluster is in words. PURE.

import type { Node, State } from "../../api/model.ts";
import { count } from "../../state/format.ts";

/** How it stands: a shape, a word, and what follows from it for its jobs. */
export function standing(node: Node): { shape: State; word: string; means: string } {
  if (node.state === "unreachable") return { shape: "lost", word: "Unreachable", means: node.jobs > 0 ? "its jobs run on, unseen" : "" };
  if (node.draining) return { shape: "paused", word: "Draining", means: node.jobs > 0 ? "no new job; what runs goes on" : "no new job" };
  if (!node.accepting) return { shape: "paused", word: "Takes no jobs", means: "it says so itself" };
  return { shape: "succeeded", word: "Connected", means: "" };
}

/** Its labels, but for those that each node has by itself. */
export function labels(node: Node): string[] {
  return Object.entries(node.labels).filter(([key]) => !key.startsWith("procession/")).map(([key, value]) => `${key}=${value}`);
}

/** The whole cluster in a sentence. */
export function sentence(nodes: Node[]): string {
  const sum = (of: (node: Node) => number): number => nodes.reduce((total, node) => total + of(node), 0);
  const away = nodes.filter((node) => node.state === "unreachable").length;
  const drained = nodes.filter((node) => node.state !== "unreachable" && node.draining).length;
  const are = (number: number, word: string): string[] => (number === 0 ? [] : [number === 1 ? `one is ${word}` : `${count(number)} are ${word}`]);
  return [
    nodes.length === 1 ? "one node" : `${count(nodes.length)} nodes`, ...are(away, "unreachable"), ...are(drained, "draining"),
    `${count(sum((node) => node.weight))} of ${count(sum((node) => node.slots))} slots taken`,
  ].join(", ");
}
