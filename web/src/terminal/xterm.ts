// xterm as this page uses it: with the nonce of the page, its colours, and deaf to what a job must not do.

import { type ITerminalInitOnlyOptions, type ITerminalOptions, Terminal as Xterm } from "@xterm/xterm";

/** xterm makes `<style>` elements; each needs the nonce before it is inserted. */
export function withNonce<T>(work: () => T): T {
  const nonce = document.querySelector<HTMLElement>("style[nonce], script[nonce]")?.nonce ?? "";
  const make = document.createElement.bind(document);
  document.createElement = ((name: string, options?: ElementCreationOptions) => {
    const element = make(name, options);
    if (name.toLowerCase() === "style") element.nonce = nonce;
    return element;
  }) as typeof document.createElement;
  try {
    return work();
  } finally {
    document.createElement = make;
  }
}

function theme(): Record<string, string> {
  const probe = document.createElement("span");
  document.body.append(probe);
  const colour = (name: string): string => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const out = {
    background: colour("log-bg"), foreground: colour("text"), cursor: colour("accent-text"), selectionBackground: colour("accent-soft"),
    black: colour("sunken"), red: colour("a-red"), green: colour("a-green"), yellow: colour("a-yellow"), blue: colour("a-blue"), magenta: colour("a-magenta"), cyan: colour("a-cyan"), white: colour("muted"),
    brightBlack: colour("a-dim"), brightRed: colour("a-red"), brightGreen: colour("a-green"), brightYellow: colour("a-yellow"), brightBlue: colour("a-blue"), brightMagenta: colour("a-magenta"), brightCyan: colour("a-cyan"), brightWhite: colour("text"),
  };
  probe.remove();
  return out;
}

/** A terminal in this element. */
export function make(box: HTMLElement, options: ITerminalOptions & ITerminalInitOnlyOptions): Xterm {
  const xterm = withNonce(() => {
    const made = new Xterm({ fontSize: 12, fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"), theme: theme(), screenReaderMode: false, allowProposedApi: false, ...options });
    made.open(box);
    return made;
  });
  // A job's words do not reach the clipboard.
  xterm.parser.registerOscHandler(52, () => true);
  return xterm;
}
