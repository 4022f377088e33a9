// What a person has chosen, in this browser.

import { effect, signal } from "@preact/signals";

export interface Settings {
  theme: "system" | "light" | "dark";
  times: "local" | "utc" | "relative";
  density: "calm" | "dense";
  keys: boolean;
  wrap: boolean;
  logTimes: "off" | "clock" | "start" | "before";
  pageSize: 50 | 100 | 200;
  /** Of the list, separated by commas. */
  columns: string;
  notify: boolean;
}

const KEY = "procession.settings";
const USUAL: Settings = { theme: "system", times: "local", density: "calm", keys: true, wrap: false, logTimes: "off", pageSize: 50, columns: "created,duration,cpu,memory,result", notify: false };

export const settings = signal<Settings>(read());

function read(): Settings {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const out = { ...USUAL } as Record<string, unknown>;
    for (const [name, value] of Object.entries(USUAL)) if (typeof kept[name] === typeof value) out[name] = kept[name];
    return out as unknown as Settings;
  } catch {
    return USUAL;
  }
}

export function change(part: Partial<Settings>): void {
  settings.value = { ...settings.value, ...part };
  try {
    localStorage.setItem(KEY, JSON.stringify(settings.value));
  } catch {
    // It lasts as long as the tab.
  }
}

effect(() => {
  const root = document.documentElement;
  if (settings.value.theme === "system") delete root.dataset["theme"];
  else root.dataset["theme"] = settings.value.theme;
  root.dataset["density"] = settings.value.density;
});
