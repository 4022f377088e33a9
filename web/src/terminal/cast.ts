// Recordings: asciicast, version 2, read and put into time. PURE.

export interface CastEvent {
  at: number;
  kind: "output" | "size" | "mark";
  text: string;
  cols: number;
  rows: number;
}

export interface Cast {
  cols: number;
  rows: number;
  events: CastEvent[];
}

/** Reads a recording; a line that is cut off or not understood is passed over. */
export function parseCast(text: string): Cast {
  const [head = "", ...lines] = text.split("\n");
  let cols = 80;
  let rows = 24;
  try {
    const json = JSON.parse(head);
    cols = bounded(json.width, 80);
    rows = bounded(json.height, 24);
  } catch {
    // It is shown at the usual size.
  }
  const events: CastEvent[] = [];
  for (const line of lines) {
    if (line === "") continue;
    try {
      const [at, kind, data] = JSON.parse(line);
      if (typeof at !== "number" || typeof data !== "string") continue;
      if (kind === "o") events.push({ at, kind: "output", text: data, cols: 0, rows: 0 });
      else if (kind === "m") events.push({ at, kind: "mark", text: data, cols: 0, rows: 0 });
      else if (kind === "r") {
        const size = /^([0-9]+)x([0-9]+)$/.exec(data);
        if (size) events.push({ at, kind: "size", text: "", cols: bounded(Number(size[1]), 80), rows: bounded(Number(size[2]), 24) });
      }
    } catch {
      // The next line may do.
    }
  }
  return { cols, rows, events };
}

function bounded(value: unknown, usual: number): number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 4096 ? value : usual;
}

/** When each event is shown where no pause is longer than `most` seconds. */
export function squeezed(events: CastEvent[], most: number): number[] {
  let last = 0;
  let shown = 0;
  return events.map(({ at }) => {
    shown += Math.min(Math.max(0, at - last), most);
    last = Math.max(last, at);
    return shown;
  });
}

/** How many events have been shown by then. */
export function countBy(times: number[], at: number): number {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}
