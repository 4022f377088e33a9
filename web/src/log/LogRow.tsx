// One row of a log. All that a job wrote becomes text nodes.

import { memo } from "preact/compat";
import { type Colour, type Mark, type Sgr, type Span, spans, BOLD, DIM, HIDDEN, INVERSE, ITALIC, STRIKE, UNDERLINE } from "./ansi.ts";
import { disguised, parts } from "./links.ts";
import type { Row } from "./rows.ts";
import { readable, rgb } from "./colours.ts";
import { bytes as size, count } from "../state/format.ts";
import { Icon } from "../parts/Icon.tsx";

export interface RowProps {
  row: Row;
  line: number | null;
  /** Goes on with the line of the row before. */
  goesOn: boolean;
  time: string | null;
  target: boolean;
  marks: readonly Mark[];
  firstHit: number;
  currentHit: number;
  raw: boolean;
  dark: boolean;
}

function LogRow_({ row, line, goesOn, time, target, marks, firstHit, currentHit, raw, dark }: RowProps) {
  if (row.kind === "gap") {
    return (
      <div class="gap" data-o={row.offset}>
        <Icon name="warn" />
        <span><b>{size(row.end - row.from)} dropped</b> by the limit of the output{row.from === 0 ? "; lines are counted from here" : ""}</span>
      </div>
    );
  }
  const number = goesOn ? "↩" : line === null ? `b${row.offset}` : count(line);
  const name = goesOn ? `↩ byte ${row.offset}` : `${line === null ? "Byte" : "Line"} ${number}`;
  return (
    <div class={`l ${row.stream === "stderr" ? "e" : ""} ${target ? "tg" : ""}`} data-o={row.offset}>
      <a class={`g ${line === null ? "unknown" : ""}`} href={`#o${row.offset}`} tabIndex={-1} aria-label={name}>{number}</a>
      {time !== null && <span class="t">{time}</span>}
      <Words row={row} marks={marks} firstHit={firstHit} currentHit={currentHit} raw={raw} dark={dark} />
    </div>
  );
}

type WordsProps = Pick<RowProps, "row" | "marks" | "firstHit" | "currentHit" | "raw" | "dark">;

/** What the job wrote; it is not made again because the number of its line has come. */
const Words = memo(({ row, marks, firstHit, currentHit, raw, dark }: WordsProps) => (
  <bdi class="x">{spans(row.bytes, row.sgr, marks, raw).map((span, index) => <SpanView key={index} span={span} current={span.mark >= 0 && firstHit + span.mark === currentHit} dark={dark} />)}</bdi>
), sameWords);

export const LogRow = memo(LogRow_, (a, b) =>
  a.line === b.line && a.goesOn === b.goesOn && a.time === b.time && a.target === b.target && sameWords(a, b));

/** A row that was fetched again has the bytes that it had. */
function sameRow(a: Row, b: Row): boolean {
  return a === b || (a.kind === b.kind && a.from === b.from && a.end === b.end && a.bytes.length === b.bytes.length && a.stream === b.stream && a.sgr.fg === b.sgr.fg && a.sgr.bg === b.sgr.bg && a.sgr.flags === b.sgr.flags);
}

function sameWords(a: WordsProps, b: WordsProps): boolean {
  return sameRow(a.row, b.row) && a.raw === b.raw && a.dark === b.dark && sameMarks(a.marks, b.marks) && (a.marks.length === 0 || (a.firstHit === b.firstHit && a.currentHit === b.currentHit));
}

function sameMarks(a: readonly Mark[], b: readonly Mark[]): boolean {
  return a.length === b.length && a.every((mark, i) => mark.from === b[i]!.from && mark.to === b[i]!.to);
}

function SpanView({ span, current, dark }: { span: Span; current: boolean; dark: boolean }) {
  const classes = [span.odd ? "odd" : "", span.mark >= 0 ? (current ? "hit now" : "hit") : "", ...classOf(span.sgr)].filter(Boolean).join(" ");
  const style = styleOf(span.sgr, dark);
  const content = span.href !== null ? <LinkTo href={span.href} words={span.text} /> : span.odd ? span.text : linked(span.text);
  if (classes === "" && style === undefined) return <>{content}</>;
  return <span class={classes} {...(style ? { style } : {})}>{content}</span>;
}

function linked(text: string) {
  if (!text.includes("://")) return text;
  return parts(text).map((part, index) => (part.href === null ? part.text : <LinkTo key={index} href={part.href} words={part.text} />));
}

function LinkTo({ href, words }: { href: string; words: string }) {
  const ask = (event: MouseEvent): void => {
    if (disguised(words, href) && !confirm(`This link leads to ${href}. Follow it?`)) event.preventDefault();
  };
  return <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href} onClick={ask}>{words}</a>;
}

function classOf(sgr: Sgr): string[] {
  const out: string[] = [];
  let [fg, bg] = sgr.flags & INVERSE ? [sgr.bg, sgr.fg] : [sgr.fg, sgr.bg];
  if (typeof fg === "number" && fg < 16) out.push(`f${fg}`);
  if (typeof bg === "number" && bg < 16) out.push(`k${bg}`);
  if (sgr.flags & INVERSE && sgr.fg === null && sgr.bg === null) out.push("inverse");
  else if (sgr.flags & INVERSE && bg === null) out.push("ontext");
  else if (sgr.flags & INVERSE && fg === null) out.push("frombg");
  for (const [bit, name] of [[BOLD, "bold"], [DIM, "dim"], [ITALIC, "italic"], [UNDERLINE, "underline"], [STRIKE, "strike"], [HIDDEN, "hidden"]] as const) {
    if (sgr.flags & bit) out.push(name);
  }
  return out;
}

function styleOf(sgr: Sgr, dark: boolean): Record<string, string> | undefined {
  const [fg, bg] = sgr.flags & INVERSE ? [sgr.bg, sgr.fg] : [sgr.fg, sgr.bg];
  const exact = (colour: Colour): readonly [number, number, number] | null => (colour === null || (typeof colour === "number" && colour < 16) ? null : rgb(colour));
  const back = exact(bg);
  const front = exact(fg);
  if (back === null && front === null) return undefined;
  const out: Record<string, string> = {};
  if (back !== null) out["background"] = `rgb(${back.join(" ")})`;
  if (front !== null) out["color"] = `rgb(${(back === null ? readable(front, dark) : front).join(" ")})`;
  else if (back !== null) out["color"] = `rgb(${readable([128, 128, 128], (back[0] * 299 + back[1] * 587 + back[2] * 114) / 1000 < 128).join(" ")})`;
  return out;
}
