// The terminal of a job: xterm over the WebSocket of `attach`. Loaded when it is first opened.

import { useEffect, useRef, useState } from "preact/hooks";
import { FitAddon } from "@xterm/addon-fit";
import { send, socketAddress, words } from "../api/client.ts";
import { isTerminal, type Job } from "../api/model.ts";
import { settings } from "../state/settings.ts";
import { frame, read, sizeFrame } from "./frames.ts";
import { make, withNonce } from "./xterm.ts";

const BACK = 256 << 10;

/** What a screen keyboard has not. A letter of the arrows is what follows the escape. */
const KEYS: [string, string][] = [["Esc", "\x1b"], ["Tab", "\t"], ["←", "D"], ["↓", "B"], ["↑", "A"], ["→", "C"], ["Home", "H"], ["End", "F"]];
const SPOKEN: Record<string, string> = { "←": "Left", "↓": "Down", "↑": "Up", "→": "Right" };

export default function Terminal({ job }: { job: Job }) {
  const box = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<"connecting" | "open" | "watching" | "lost" | "ended">("connecting");
  const [title, setTitle] = useState("");
  const [left, setLeft] = useState(false);
  const [control, setControl] = useState(false);
  const held = useRef(false);
  held.current = control;
  const press = useRef<(key: string) => void>(() => undefined);
  useEffect(() => {
    if (left) return;
    const ended = isTerminal(job.state);
    const xterm = make(box.current!, { scrollback: 10_000 });
    const fit = new FitAddon();
    xterm.loadAddon(fit);
    withNonce(() => fit.fit());
    xterm.onTitleChange((text) => setTitle(text.slice(0, 200)));
    let socket: WebSocket | null = null;
    let offset: number | null = null;
    let closed = false;
    let wait = 250;
    let watching = ended;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const say = (bytes: Uint8Array<ArrayBuffer>): void => {
      if (socket?.readyState === WebSocket.OPEN && !watching) socket.send(bytes);
    };
    const connect = async (): Promise<void> => {
      try {
        if (offset === null) {
          // Where the last of the output begins: its offsets are counted from there.
          const head = await send("GET", `/jobs/${job.id}/output`, { query: { tail_bytes: BACK, limit_bytes: 0 } });
          offset = Number(head.headers.get("Procession-First-Offset"));
        }
        const url = await socketAddress(`/jobs/${job.id}/attach`, { stdin: watching ? null : true, offset });
        if (closed) return;
        const mine = new WebSocket(url, "v5.channel.k8s.io");
        mine.binaryType = "arraybuffer";
        socket = mine;
        let opened = false;
        mine.onopen = () => {
          opened = true;
          wait = 250;
          setState(watching ? "watching" : "open");
          if (!watching) {
            // There and back, so that a full-screen program draws itself anew.
            say(sizeFrame(xterm.cols, Math.max(1, xterm.rows - 1)));
            say(sizeFrame(xterm.cols, xterm.rows));
          }
        };
        mine.onmessage = ({ data }) => {
          const message = read(data);
          if (message.kind === "output") {
            offset = (offset ?? 0) + message.bytes.length;
            xterm.write(message.bytes);
          } else if (message.kind === "gap") offset = message.to;
          else if (message.kind === "status") setState("ended");
        };
        mine.onclose = ({ code }) => {
          if (closed || socket !== mine) return;
          if (code === 1000 || code === 1008) return setState("ended");
          // A browser does not say why a handshake failed: the one reason that lasts is that somebody else writes.
          if (!opened && !watching) watching = true;
          setState("lost");
          timer = setTimeout(() => void connect(), wait * (0.5 + Math.random()));
          wait = Math.min(wait * 2, 8000);
        };
      } catch (error) {
        if (closed) return;
        setTitle(words(error));
        setState("lost");
        timer = setTimeout(() => void connect(), wait);
        wait = Math.min(wait * 2, 8000);
      }
    };
    let prefix = false;
    xterm.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown" || event.key === "Control") return true;
      if (prefix && event.ctrlKey && event.key === "q") {
        setLeft(true);
        return false;
      }
      prefix = event.ctrlKey && event.key === "p";
      return true;
    });
    press.current = (key) => {
      xterm.input(/^[A-H]$/.test(key) ? `\x1b${xterm.modes.applicationCursorKeysMode ? "O" : "["}${key}` : key);
      xterm.focus();
    };
    xterm.onData((typed) => {
      // The next letter after Ctrl of the bar.
      const isHeld = held.current && /^[@-_a-z]$/.test(typed);
      const text = isHeld ? String.fromCharCode(typed.toUpperCase().charCodeAt(0) & 31) : typed;
      if (isHeld) setControl(false);
      if (text.includes("\r") && text.length > 1 && !xterm.modes.bracketedPasteMode && text.split("\r").length > 2 && !confirm(`Paste ${text.split("\r").length} lines?`)) return;
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length; at += 32768) say(frame(0, bytes.subarray(at, at + 32768)));
    });
    xterm.onBinary((text) => say(frame(0, Uint8Array.from(text, (letter) => letter.charCodeAt(0)))));
    xterm.onResize(({ cols, rows }) => say(sizeFrame(cols, rows)));
    const observer = new ResizeObserver(() => withNonce(() => fit.fit()));
    observer.observe(box.current!);
    void connect();
    xterm.focus();
    return () => {
      closed = true;
      clearTimeout(timer);
      observer.disconnect();
      socket?.close();
      xterm.dispose();
    };
  }, [job.id, left, settings.value.theme]);
  const WORDS = { connecting: "connecting …", open: "you write", watching: "you watch: it has ended, or somebody else writes", lost: "connecting again …", ended: "it has ended" };
  return (
    <section class="card log" aria-label="Terminal">
      <div class="tools"><span class="muted small cut grow"><bdi>{title}</bdi></span><span class="faint small">Ctrl-P Ctrl-Q leaves it running</span></div>
      {left ? <div class="empty"><h2>You have left</h2><p class="muted">The job goes on.</p><button type="button" class="btn" onClick={() => setLeft(false)}>Come back</button></div> : <div class="terminal" ref={box} />}
      {state === "open" && !left && (
        <div class="keybar" role="group" aria-label="Keys">
          <button type="button" class="btn" aria-pressed={control} onClick={() => { setControl(!control); press.current(""); }}>Ctrl</button>
          {KEYS.map(([word, key]) => <button key={word} type="button" class="btn" aria-label={SPOKEN[word]} onClick={() => press.current(key)}>{word}</button>)}
        </div>
      )}
      <div class="status"><span role="status">{left ? "left" : WORDS[state]}</span></div>
    </section>
  );
}
