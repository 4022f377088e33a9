// Numbers and times for people. PURE.

/** `48 s`, `3 min 41 s`, `2 h 14 min`, `9 d 3 h`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 0.001) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toString()} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return rest(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return rest(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return rest(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function rest(big: number, unit: string, small: number, part: string): string {
  return small === 0 ? `${big} ${unit}` : `${big} ${unit} ${small} ${part}`;
}

/** `12.4 MB`: powers of ten. */
export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = count;
  let unit = -1;
  do {
    value /= 1000;
    unit += 1;
  } while (value >= 999.5 && unit < units.length - 1);
  return `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`.replace(/\.0+ /, " ").replace(/(\.[0-9]*[1-9])0+ /, "$1 ");
}

/** `10 482 086`, with thin spaces. */
export function count(number: number): string {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** A duration that somebody typed: `90`, `10 s`, `1.5 h`, `2h30m`. */
export function parseDuration(text: string): number | null {
  const word = text.trim().toLowerCase();
  if (/^[0-9]+(\.[0-9]+)?$/.test(word)) return Number(word);
  const UNITS: Record<string, number> = { ms: 0.001, s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86400, w: 604800 };
  let sum = 0;
  let rest = word;
  while (rest !== "") {
    const found = /^([0-9]+(?:\.[0-9]+)?)\s*(ms|sec|s|min|m|h|d|w)\s*/.exec(rest);
    if (!found) return null;
    sum += Number(found[1]) * UNITS[found[2]!]!;
    rest = rest.slice(found[0].length);
  }
  return word === "" ? null : sum;
}

/** A size that somebody typed: `64 MB`, `2GiB`, `1024`. */
export function parseBytes(text: string): number | null {
  const found = /^([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?)b?$/i.exec(text.trim());
  if (!found) return null;
  const power = ["", "k", "m", "g", "t", "p"].indexOf(found[2]!.toLowerCase());
  if (found[3] !== "" && power === 0) return null;
  return Math.round(Number(found[1]) * (found[3] !== "" ? 1024 : 1000) ** power);
}

/** `token:ops` is `ops`, `uid:0` stays. */
export function actor(text: string | null): string {
  return text === null ? "–" : text.replace(/^token:/, "");
}

export function two(number: number): string {
  return String(number).padStart(2, "0");
}

/** The time of a moment, with the day where it is another one. */
export function moment(at: string, now: number, mode: "local" | "utc" | "relative"): string {
  const date = new Date(at);
  if (mode === "relative") {
    const ago = (now - date.getTime()) / 1000;
    return ago < 5 ? "now" : `${duration(Math.floor(ago)).replace(/ [0-9]+ (s|min|h)$/, (rest) => (ago < 120 ? rest : ""))} ago`;
  }
  const utc = mode === "utc";
  const get = (name: "FullYear" | "Month" | "Date" | "Hours" | "Minutes" | "Seconds", of: Date): number => (utc ? of[`getUTC${name}`]() : of[`get${name}`]());
  const today = new Date(now);
  const time = `${two(get("Hours", date))}:${two(get("Minutes", date))}:${two(get("Seconds", date))}`;
  const same = get("FullYear", date) === get("FullYear", today) && get("Month", date) === get("Month", today) && get("Date", date) === get("Date", today);
  if (same) return time;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const day = `${get("Date", date)} ${MONTHS[get("Month", date)]}`;
  return get("FullYear", date) === get("FullYear", today) ? `${day} ${time.slice(0, 5)}` : `${day} ${get("FullYear", date)}`;
}

/** A command as a shell would take it. */
export function quote(argument: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}

/** What a job runs, on one line. */
export function commandLine(spec: { command?: string[] | null; script?: string | null }): string {
  if (spec.command) return spec.command.map(quote).join(" ");
  return (spec.script ?? "").split("\n").map((line) => line.trim()).filter(Boolean).join("; ");
}
