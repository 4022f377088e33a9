// The records of an output as they come over the wire, to pieces. PURE.

import type { Piece } from "./rows.ts";

export type Record_ = { kind: "output"; piece: Piece } | { kind: "gap"; from: number; to: number } | { kind: "end"; state: string } | { kind: "other" };

const encoder = new TextEncoder();

export function record(line: string): Record_ {
  const json = JSON.parse(line);
  switch (json.type) {
    case "output":
      return { kind: "output", piece: { offset: json.offset, stream: json.stream, at: json.at, bytes: json.text !== undefined ? encoder.encode(json.text) : unbase64(json.base64) } };
    case "gap":
      return { kind: "gap", from: json.from, to: json.to };
    case "end":
      return { kind: "end", state: json.state };
    default:
      return { kind: "other" };
  }
}

function unbase64(text: string): Uint8Array {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The lines of a body, as they come. */
export async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rest += decoder.decode(value, { stream: true });
      let from = 0;
      for (let to = rest.indexOf("\n"); to >= 0; to = rest.indexOf("\n", from)) {
        if (to > from) yield rest.slice(from, to);
        from = to + 1;
      }
      rest = rest.slice(from);
    }
    if (rest !== "") yield rest;
  } finally {
    // Whoever goes away early ends the request.
    await reader.cancel().catch(() => undefined);
  }
}
