// What a person chooses, in this browser.

import { Icon, type IconName } from "../parts/Icon.tsx";
import { Segments } from "../parts/parts.tsx";
import { link } from "../router.ts";
import { isHub } from "../state/me.ts";
import { change, settings } from "../state/settings.ts";

/** What the rail has and the bar of a small screen has not. */
const MORE: [string, string, IconName][] = [["batches", "Batches", "batch"], ["schedules", "Schedules", "schedule"], ["nodes", "Nodes", "node"], ["access", "Access, log out", "access"], ["checkup", "Check-up", "checkup"]];

export function SettingsView() {
  const now = settings.value;
  const box = (label: string, value: boolean, set: (value: boolean) => void) => <label class="inline"><input type="checkbox" checked={value} onChange={() => set(!value)} />{label}</label>;
  return (
    <div class="stack">
    <nav class="card narrow links" aria-label="More">
      {MORE.filter(([path]) => path !== "nodes" || isHub()).map(([path, word, icon]) => <a key={path} href={link(path)}><Icon name={icon} />{word}</a>)}
    </nav>
    <div class="card">
      <Choice title="Colours"><Segments label="Colours" value={now.theme} options={[["system", "As the system"], ["light", "Light"], ["dark", "Dark"]]} onChange={(theme) => change({ theme })} /></Choice>
      <Choice title="Times"><Segments label="Times" value={now.times} options={[["local", "Local"], ["utc", "UTC"], ["relative", "How long ago"]]} onChange={(times) => change({ times })} /></Choice>
      <Choice title="Lists"><Segments label="Lists" value={now.density} options={[["calm", "Two lines a job"], ["dense", "One line"]]} onChange={(density) => change({ density })} /></Choice>
      <Choice title="Jobs a page"><Segments label="Jobs a page" value={String(now.pageSize) as "50"} options={[["50", "50"], ["100", "100"], ["200", "200"]] as ["50", string][]} onChange={(size) => change({ pageSize: Number(size) as 50 })} /></Choice>
      <Choice title="Output">{box("wrap long lines", now.wrap, (wrap) => change({ wrap }))}</Choice>
      <Choice title="Times of lines"><Segments label="Times of lines" value={now.logTimes} options={[["off", "Off"], ["clock", "Clock"], ["start", "Since the start"], ["before", "Since the line before"]]} onChange={(logTimes) => change({ logTimes })} /></Choice>
      <Choice title="Keys">{box("single keys act (press ? to see them)", now.keys, (keys) => change({ keys }))}</Choice>
      <Choice title="Notifications">{box("when a job that is open in a hidden tab ends", now.notify, (notify) => {
        if (notify && "Notification" in window) void Notification.requestPermission().then((answer) => change({ notify: answer === "granted" }));
        else change({ notify: false });
      })}</Choice>
    </div>
    </div>
  );
}

function Choice({ title, children }: { title: string; children: preact.ComponentChildren }) {
  return <div class="choice"><b class="small">{title}</b><div>{children}</div></div>;
}
