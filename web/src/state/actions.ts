// What can be done where one is: the box at the top offers it beside jobs and views.

import { useLayoutEffect } from "preact/hooks";
import type { IconName } from "../parts/Icon.tsx";

export interface Action {
  key: string;
  word: string;
  icon: IconName;
  run: () => void;
}

const offers = new Set<{ now: () => Action[] }>();

/** What is offered at this moment. */
export function actions(): Action[] {
  return [...offers].flatMap((offer) => offer.now());
}

/** Offers this as long as the component is there, as it was last drawn. */
export function useActions(now: () => Action[]): void {
  useLayoutEffect(() => {
    const offer = { now };
    offers.add(offer);
    return () => { offers.delete(offer); };
  });
}

/** Do the words begin with this, or one of them? `>` alone is for all. */
export function fits(action: Action, typed: string): boolean {
  const wanted = typed.replace(/^>\s*/, "").toLowerCase();
  const words = action.word.toLowerCase();
  return (typed.startsWith(">") || wanted !== "") && (words.startsWith(wanted) || words.includes(` ${wanted}`));
}
