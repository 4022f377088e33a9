// The column of times. PURE.

export type Times = "off" | "clock" | "start" | "before";

export function clock(at: string, utc: boolean): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  const [h, m, s] = utc ? [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()] : [date.getHours(), date.getMinutes(), date.getSeconds()];
  return `${two(h)}:${two(m)}:${two(s)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** Microseconds since the epoch. */
export function micros(at: string): number {
  const fraction = /\.([0-9]{1,6})/.exec(at)?.[1] ?? "";
  return Math.floor(new Date(at).getTime() / 1000) * 1e6 + Number(fraction.padEnd(6, "0"));
}

/** A span of time as `+1.234`, `+2:03.5` or `+1:02:03`. */
export function since(from: string, at: string): string {
  const span = Math.max(0, micros(at) - micros(from)) / 1e6;
  if (!Number.isFinite(span)) return "";
  if (span < 60) return `+${span.toFixed(3)}`;
  const minutes = Math.floor(span / 60);
  if (minutes < 60) return `+${minutes}:${(span - minutes * 60).toFixed(1).padStart(4, "0")}`;
  return `+${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(span - minutes * 60))}`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}
