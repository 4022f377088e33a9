// Small parts that every view uses.

import type { ComponentChildren, InputHTMLAttributes } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { Problem, words } from "../api/client.ts";
import { Icon, type IconName } from "./Icon.tsx";

/** A moment of this clock, once a second while somebody looks. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

export function Button(props: { icon?: IconName; kind?: "go" | "stop" | "quiet" | ""; small?: boolean; children?: ComponentChildren; label?: string; pressed?: boolean; disabled?: boolean; onClick?: (event: MouseEvent) => void; type?: "button" | "submit"; class?: string; title?: string; menu?: boolean; expanded?: boolean }) {
  const bare = props.children === undefined;
  const classes = ["btn", props.kind ?? "", props.small ? "small" : "", bare ? "icon" : "", props.class ?? ""].filter(Boolean).join(" ");
  return (
    <button type={props.type ?? "button"} class={classes} aria-label={props.label} title={props.title ?? (bare ? props.label : undefined)} aria-pressed={props.pressed} disabled={props.disabled} aria-haspopup={props.menu ? "menu" : undefined} aria-expanded={props.expanded} onClick={props.onClick}>
      {props.icon && <Icon name={props.icon} />}
      {props.children}
    </button>
  );
}

export function Meter({ part, class: kind = "" }: { part: number; class?: string }) {
  return (
    <div class={`meter ${kind}`} aria-hidden="true">
      <i style={{ width: `${Math.round(Math.min(1, Math.max(0, part)) * 1000) / 10}%` }} />
    </div>
  );
}

export function Labels({ labels, most = 3 }: { labels: Record<string, string>; most?: number }) {
  const all = Object.entries(labels);
  return (
    <span class="labels">
      {all.slice(0, most).map(([key, value]) => (
        <bdi class="label" key={key} title={`${key}=${value}`}>{value === "" ? key : `${key}=${value}`}</bdi>
      ))}
      {all.length > most && <span class="label" title={all.slice(most).map(([key, value]) => `${key}=${value}`).join(", ")}>+{all.length - most}</span>}
    </span>
  );
}

/** A dialog over the page. Escape and a click beside it close it. */
export function Dialog({ title, children, onClose, wide = false }: { title: ComponentChildren; children: ComponentChildren; onClose: () => void; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = ref.current!;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog ref={ref} class={`dialog ${wide ? "broad" : ""}`} aria-labelledby="dialog-title" onCancel={(event) => { event.preventDefault(); onClose(); }} onClick={(event) => { if (event.target === ref.current) onClose(); }}>
      <div class="inside">
        <h2 id="dialog-title">{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

const ITEM = "[role^=menuitem]:not([disabled])";

/** A button that opens a list of choices; one with `checked` is a box, and leaves the list open. */
export function Menu({ label, icon, children, items, kind, small = false, class: classes = "" }: { label: string; icon?: IconName; children?: ComponentChildren; items: { word: ComponentChildren; key: string; run: () => void; disabled?: boolean; checked?: boolean }[]; kind?: "stop" | "quiet"; small?: boolean; class?: string }) {
  const [open, setOpen] = useState(false);
  const ref = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (!open) return;
    ref.current?.querySelector<HTMLElement>(ITEM)?.focus();
    const close = (event: Event): void => {
      if (!ref.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, [open]);
  const keys = (event: KeyboardEvent): void => {
    if (!open) return;
    const all = [...(ref.current?.querySelectorAll<HTMLElement>(ITEM) ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (event.key === "Escape") {
      setOpen(false);
      ref.current?.querySelector("button")?.focus();
    } else if (event.key === "ArrowDown") all[(at + 1) % all.length]?.focus();
    else if (event.key === "ArrowUp") all[(at - 1 + all.length) % all.length]?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <span class={`menu ${classes}`} ref={ref} onKeyDown={keys}>
      <Button {...(icon ? { icon } : {})} {...(kind ? { kind } : {})} small={small} label={label} menu expanded={open} onClick={() => setOpen(!open)}>{children}</Button>
      {open && (
        <div class="pop" role="menu" aria-label={label}>
          {items.map((item) => (
            <button key={item.key} type="button" role={item.checked === undefined ? "menuitem" : "menuitemcheckbox"} aria-checked={item.checked} disabled={item.disabled} onClick={() => { if (item.checked === undefined) setOpen(false); item.run(); }}>{item.checked !== undefined && <span class="mark" aria-hidden="true">{item.checked ? "✓" : ""}</span>}{item.word}</button>
          ))}
        </div>
      )}
    </span>
  );
}

export function Segments<T extends string>({ label, value, options, onChange }: { label: string; value: T; options: [T, string][]; onChange: (value: T) => void }) {
  return (
    <span class="seg" role="group" aria-label={label}>
      {options.map(([key, word]) => (
        <button key={key} type="button" aria-pressed={key === value} onClick={() => onChange(key)}>{word}</button>
      ))}
    </span>
  );
}

export function Field({ label, hint, error, children, id }: { label: string; hint?: ComponentChildren; error?: string | undefined; children: ComponentChildren; id: string }) {
  return (
    <div class={`field ${error ? "wrong" : ""}`}>
      <label for={id}>{label}</label>
      {children}
      {error ? <span class="err" id={`${id}-error`}><Icon name="warn" />{error}</span> : hint && <span class="hint">{hint}</span>}
    </div>
  );
}

export function Input(props: InputHTMLAttributes<HTMLInputElement> & { id: string; bad?: boolean; mono?: boolean }) {
  const { bad, mono, ...rest } = props;
  return <input autocomplete="off" spellcheck={false} {...rest} class={`input ${bad ? "bad" : ""} ${mono ? "mono" : ""}`} aria-invalid={bad ? "true" : undefined} aria-describedby={bad ? `${props.id}-error` : undefined} />;
}

/** What went wrong, in words, and the way on. */
export function Broken({ error, again }: { error: unknown; again?: () => void }) {
  return (
    <div class="card empty" role="alert">
      <h2>{error instanceof Problem && error.status === 404 ? "Removed, or never there" : "That did not work"}</h2>
      <p class="muted">{words(error)}</p>
      {error instanceof Problem && <p class="faint mono">{error.code}{error.requestId && ` · request ${error.requestId}`}</p>}
      {again && <Button small icon="again" onClick={again}>Try again</Button>}
    </div>
  );
}

export function Loading({ rows = 6 }: { rows?: number }) {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), 150);
    return () => clearTimeout(timer);
  }, []);
  if (!shown) return <div class="bones" aria-busy="true" />;
  return (
    <div class="card bones" aria-busy="true" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <div key={i}><span class="bone" /><span class={`bone w${(i * 7) % 4}`} /><span class="bone" /></div>
      ))}
    </div>
  );
}

/** Short words at the foot of the page, and for screen readers. */
export const toast = signal<{ text: string; bad: boolean; at: number } | null>(null);

export function say(text: string, bad = false): void {
  toast.value = { text, bad, at: Date.now() };
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied ${what}`);
  } catch {
    say("The browser did not let the page copy", true);
  }
}

export function Toast() {
  const present = toast.value;
  useEffect(() => {
    if (!present) return;
    const timer = setTimeout(() => {
      if (toast.value === present) toast.value = null;
    }, present.bad ? 8000 : 4000);
    return () => clearTimeout(timer);
  }, [present]);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {present && <div class={`toast ${present.bad ? "bad" : ""}`}>{present.text}</div>}
    </div>
  );
}
