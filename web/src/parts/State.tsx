// The state of a job: a shape and a word, never a colour alone.

import type { State as Name } from "../api/model.ts";

const SHAPES: Record<Name, { d: string; filled?: boolean; dashed?: boolean; width?: number; word: string }> = {
  queued: { d: "M2.4 8a5.6 5.6 0 1 0 11.2 0A5.6 5.6 0 1 0 2.4 8", dashed: true, word: "Queued" },
  starting: { d: "M2.4 8a5.6 5.6 0 1 0 11.2 0A5.6 5.6 0 1 0 2.4 8", word: "Starting" },
  running: { d: "M5 3.3v9.4L12.6 8z", filled: true, word: "Running" },
  paused: { d: "M5.6 3.6v8.8M10.4 3.6v8.8", width: 2.6, word: "Paused" },
  stopping: { d: "M2.4 8a5.6 5.6 0 1 0 11.2 0A5.6 5.6 0 1 0 2.4 8M6.2 6.2h3.6v3.6H6.2z", word: "Stopping" },
  succeeded: { d: "m3 8.6 3.3 3.3L13 4.6", width: 2.3, word: "Succeeded" },
  failed: { d: "m4 4 8 8M12 4l-8 8", width: 2.3, word: "Failed" },
  canceled: { d: "M2.4 8a5.6 5.6 0 1 0 11.2 0A5.6 5.6 0 1 0 2.4 8M4.2 11.8l7.6-7.6", word: "Canceled" },
  timed_out: { d: "M3 8.6a5 5 0 1 0 10 0 5 5 0 1 0-10 0M8 5.8v3h2.2M6.4 1.8h3.2", word: "Timed out" },
  lost: { d: "M5.6 6a2.4 2.4 0 1 1 3.6 2.1c-.8.5-1.2 1-1.2 1.9M8 12.9h.01", width: 2.2, word: "Lost" },
};

export function stateWord(state: Name): string {
  return SHAPES[state]?.word ?? state;
}

export function StateShape({ state }: { state: Name }) {
  const shape = SHAPES[state] ?? SHAPES.starting;
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true">
      <path d={shape.d} stroke-width={shape.width ?? 1.9} stroke-dasharray={shape.dashed ? "2.4 2.6" : undefined} fill={shape.filled ? "currentColor" : "none"} />
    </svg>
  );
}

export function State({ state }: { state: Name }) {
  return (
    <span class={`state ${state}`} title={stateWord(state)}>
      <StateShape state={state} />
      <span class="word">{stateWord(state)}</span>
    </span>
  );
}
