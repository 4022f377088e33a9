// The keys of the log.

import { useEffect, useRef } from "preact/hooks";
import { change, settings } from "../state/settings.ts";
import { ROW } from "./place.ts";
import type { Viewport } from "./viewport.ts";

export interface Acts {
  port: Viewport;
  step: (by: 1 | -1) => void;
  ask: () => void;
  cycle: () => void;
  nextError: () => void;
  find: () => void;
  streams: () => void;
  download: () => void;
}

export function useKeys(acts: Acts): (event: KeyboardEvent) => void {
  const pending = useRef("");
  const hear = (event: KeyboardEvent): void => {
    const { port } = acts;
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
    if ((event.ctrlKey || event.metaKey) && event.key === "f" && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      return acts.find();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const page = port.height - 2 * ROW;
    const moves: Record<string, () => void> = {
      ArrowDown: () => port.scrollBy(ROW), ArrowUp: () => port.scrollBy(-ROW), PageDown: () => port.scrollBy(page), PageUp: () => port.scrollBy(-page),
      Home: () => port.toStart(), End: () => port.toEnd(),
    };
    const letters: Record<string, () => void> = {
      " ": () => port.scrollBy(event.shiftKey ? -page : page), f: () => port.toEnd(), G: () => port.toEnd(), "/": acts.find, n: () => acts.step(1), N: () => acts.step(-1),
      ":": acts.ask, w: () => change({ wrap: !settings.value.wrap }), t: acts.cycle, o: acts.streams, E: acts.nextError, d: acts.download,
    };
    // Buttons and links have keys of their own.
    const inLines = event.target instanceof Element && event.target.closest(".lines") !== null;
    let act = inLines ? moves[event.key] : undefined;
    if (!act && settings.value.keys && (inLines || event.key !== " ")) {
      if (event.key === "g") {
        if (pending.current === "g") act = () => port.toStart();
        pending.current = pending.current === "g" ? "" : "g";
      } else act = letters[event.key];
    }
    if (event.key !== "g") pending.current = "";
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  // Where nothing has the focus they are meant for the log too, but for the two that lead elsewhere.
  const latest = useRef(hear);
  latest.current = hear;
  useEffect(() => {
    const beside = (event: KeyboardEvent): void => {
      if (event.target === document.body && !ELSEWHERE.has(event.key)) latest.current(event);
    };
    document.body.addEventListener("keydown", beside);
    return () => document.body.removeEventListener("keydown", beside);
  }, []);
  return hear;
}

/** Of the whole page: run, and the first letter of a view. */
const ELSEWHERE = new Set(["n", "g", "/"]);
