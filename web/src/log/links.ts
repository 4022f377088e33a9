// Links in plain text. PURE.

import { target } from "./ansi.ts";

export interface Part {
  text: string;
  href: string | null;
}

const URLS = /https?:\/\/[^\s"'<>`{}|\\^\u0000-\u0020]+/gi;

/** Cuts a text into what is a link and what is not. The words of a link are its target. */
export function parts(text: string): Part[] {
  if (!text.includes("://")) return [{ text, href: null }];
  const out: Part[] = [];
  let from = 0;
  for (const found of text.matchAll(URLS)) {
    let word = found[0].replace(/[.,;:!?]+$/, "");
    // A closing bracket belongs to the text around unless it was opened within.
    while (/[)\]]$/.test(word) && count(word, word.endsWith(")") ? "(" : "[") < count(word, word.at(-1)!)) word = word.slice(0, -1);
    const href = target(word);
    if (href === null) continue;
    if (found.index > from) out.push({ text: text.slice(from, found.index), href: null });
    out.push({ text: word, href });
    from = found.index + word.length;
  }
  if (from < text.length || out.length === 0) out.push({ text: text.slice(from), href: null });
  return out;
}

function count(text: string, letter: string): number {
  return text.split(letter).length - 1;
}

/** Do the words of a link name another host than its target? */
export function disguised(words: string, href: string): boolean {
  const named = /^\s*(?:https?:\/\/)?([a-z0-9-]+(?:\.[a-z0-9-]+)+)/i.exec(words);
  return named !== null && named[1]!.toLowerCase() !== new URL(href).hostname;
}
