// Messages of `v5.channel.k8s.io`. PURE.

export type Message = { kind: "output"; bytes: Uint8Array } | { kind: "gap"; to: number } | { kind: "status"; text: string } | { kind: "other" };

export function frame(channel: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length + 1);
  out[0] = channel;
  out.set(data, 1);
  return out;
}

export function sizeFrame(cols: number, rows: number): Uint8Array<ArrayBuffer> {
  return frame(4, new TextEncoder().encode(JSON.stringify({ Width: cols, Height: rows })));
}

export function read(data: ArrayBuffer | string): Message {
  if (typeof data === "string") {
    const json = JSON.parse(data);
    return json.type === "gap" ? { kind: "gap", to: json.to } : { kind: "other" };
  }
  const bytes = new Uint8Array(data);
  if (bytes[0] === 1 || bytes[0] === 2) return { kind: "output", bytes: bytes.subarray(1) };
  if (bytes[0] === 3) return { kind: "status", text: new TextDecoder().decode(bytes.subarray(1)) };
  return { kind: "other" };
}
