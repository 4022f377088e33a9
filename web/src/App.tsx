// The frame around every view: rail, bar, banners, and the sign-in over all of it.

import { lazy, Suspense } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { reachable, words } from "./api/client.ts";
import { live, tryNow, watch } from "./api/hints.ts";
import { changed, over, session, token } from "./api/session.ts";
import { Icon, type IconName, Logo } from "./parts/Icon.tsx";
import { Button, Dialog, Loading, now, say, Toast } from "./parts/parts.tsx";
import { Jump } from "./parts/Jump.tsx";
import { go, link, place, type View } from "./router.ts";
import { actor, duration } from "./state/format.ts";
import { info, isHub, loadInfo, may, setDraining, signOut, whoAmI } from "./state/me.ts";
import { useActions } from "./state/actions.ts";
import { change, settings } from "./state/settings.ts";
import { shownName } from "./state/shown.ts";
import { JobPage } from "./views/job/JobPage.tsx";
import { Jobs } from "./views/jobs/Jobs.tsx";
import { Overview } from "./views/Overview.tsx";
import { codeWaits, SignIn } from "./views/SignIn.tsx";

// What is seldom the first that is looked at comes when it is.
const Access = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Access })));
const Events = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Events })));
const SettingsView = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.SettingsView })));
const Checkup = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Checkup })));
const Batches = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Batches })));
const BatchPage = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.BatchPage })));
const Queues = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Queues })));
const Schedules = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Schedules })));
const SchedulePage = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.SchedulePage })));
const Nodes = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Nodes })));
const Run = lazy(() => import("./views/rest.ts").then((all) => ({ default: all.Run })));

const RAIL: [View, string, IconName, string][] = [
  ["overview", "", "overview", "Overview"],
  ["jobs", "jobs", "jobs", "Jobs"],
  ["batches", "batches", "batch", "Batches"],
  ["queues", "queues", "queue", "Queues"],
  ["schedules", "schedules", "schedule", "Schedules"],
  ["nodes", "nodes", "node", "Nodes"],
  ["events", "events", "events", "Events"],
];
const SERVICE: [View, string, IconName, string][] = [
  ["access", "access", "access", "Access"],
  ["checkup", "checkup", "checkup", "Check-up"],
  ["settings", "settings", "settings", "Settings"],
];

/** What a small screen has at its foot; the rest is behind the last of them. */
const FOOT: [View, string, IconName, string][] = [...RAIL.filter(([view]) => view !== "batches" && view !== "schedules" && view !== "nodes"), ["settings", "settings", "more", "More"]];

/** The list that a view of one thing belongs to. */
const LISTS: Partial<Record<View, View>> = { job: "jobs", batch: "batches", schedule: "schedules" };

const TITLES: Record<View, string> = {
  overview: "Overview", jobs: "Jobs", job: "Job", run: "Run", batches: "Batches", batch: "Batch", queues: "Queues", schedules: "Schedules", schedule: "Schedule", nodes: "Nodes", events: "Events", access: "Access", checkup: "Check-up", settings: "Settings", signin: "Sign in", nowhere: "Nothing here",
};

export function App() {
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    if (codeWaits()) return;
    whoAmI().then(() => setFailed(false), () => setFailed(true));
  }, [changed.value, failed && reachable.value.lost === null]);
  useEffect(() => {
    if (session.value === undefined && failed) {
      const timer = setInterval(() => void whoAmI().then(() => setFailed(false), () => undefined), 1000);
      return () => clearInterval(timer);
    }
    return undefined;
  }, [failed]);
  useEffect(() => {
    const { view } = place.value;
    if (LISTS[view] === undefined) document.title = `${TITLES[view]} · Procession`;
  }, [place.value]);
  if (place.value.view === "signin" || session.value === null) return <><SignIn alone /><Toast /></>;
  if (session.value === undefined) return failed ? <div class="banners"><Lost /></div> : null;
  return <Frame />;
}

function Frame() {
  const at = place.value;
  useEffect(() => {
    void loadInfo();
    return watch("events", () => { infoSoon(); });
  }, []);
  useKeysEverywhere();
  const [help, setHelp] = useState(false);
  useActions(() => [
    ...(may("admin") && info.value ? [{ key: "drain", ...(info.value.draining ? { icon: "play" as const, word: "End the drain: take jobs again" } : { icon: "stop" as const, word: "Drain the service: take no new jobs" }), run: drain }] : []),
    { key: "theme", icon: isDark() ? "sun" : "moon", word: isDark() ? "Light colours" : "Dark colours", run: () => change({ theme: isDark() ? "light" : "dark" }) },
    { key: "keys", icon: "eye", word: "Keys and what they do", run: () => setHelp(true) },
    { key: "out", icon: "person", word: "Log out", run: () => void signOut() },
  ]);
  useEffect(() => {
    const hear = (): void => setHelp(true);
    document.addEventListener("procession-help", hear);
    return () => document.removeEventListener("procession-help", hear);
  }, []);
  const present = (view: View): boolean => at.view === view || LISTS[at.view] === view;
  const running = info.value?.jobs.running;
  const queued = info.value?.jobs.queued;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <div class={`app ${over.value ? "veiled" : ""}`}>
        <nav class="rail" aria-label="Main">
          <div class="brand"><Logo />Procession</div>
          {RAIL.filter(([view]) => view !== "nodes" || isHub()).map(([view, path, icon, word]) => (
            <a key={view} href={link(path)} aria-current={present(view) ? "page" : undefined}><Icon name={icon} />{word}{view === "queues" && queued !== undefined && queued > 0 && <span class="count" title={`${queued} waiting`}>{queued}</span>}{view === "jobs" && running !== undefined && running > 0 && <span class="count" title={`${running} running`}>{running}</span>}</a>
          ))}
          <h3>This service</h3>
          {SERVICE.map(([view, path, icon, word]) => (
            <a key={view} href={link(path)} aria-current={present(view) ? "page" : undefined}><Icon name={icon} />{word}</a>
          ))}
          <Foot />
        </nav>
        <div class="main">
          <header class="bar">
            <Title />
            <div class="grow" />
            <Jump />
            <span class={`live ${live.value}`} title={LIVE[live.value]}><span>{live.value === "lost" ? "Lost" : "Live"}</span></span>
            <Theme />
            <a class="btn quiet wide" href={link("access")} title={`${session.value?.actor}, may ${session.value?.scope}`}><Icon name="person" />{actor(session.value?.actor ?? null)}</a>
            {may("operate") && <a class="btn go" href={link("run")}><Icon name="plus" />Run{settings.value.keys && <span class="wide" aria-hidden="true">N</span>}</a>}
          </header>
          <div class="banners"><Lost /><Draining /></div>
          <main class="body" id="main" tabIndex={-1} key={at.id === "" ? at.view : at.id}><Suspense fallback={<Loading />}><Content view={at.view} id={at.id} /></Suspense></main>
        </div>
        <nav class="tabbar" aria-label="Main, short">
          {FOOT.map(([view, path, icon, word]) => (
            <a key={view} href={link(path)} aria-current={present(view) ? "page" : undefined}><Icon name={icon} />{word}</a>
          ))}
        </nav>
      </div>
      {over.value && <div class="scrim"><SignIn /></div>}
      {help && <Help onClose={() => setHelp(false)} />}
      <Toast />
    </>
  );
}

function Content({ view, id }: { view: View; id: string }) {
  switch (view) {
    case "overview": return <Overview />;
    case "jobs": return <Jobs />;
    case "job": return <JobPage id={id} />;
    case "run": return <Run />;
    case "batches": return <Batches />;
    case "batch": return <BatchPage id={id} />;
    case "queues": return <Queues />;
    case "schedules": return <Schedules />;
    case "schedule": return <SchedulePage name={id} />;
    case "nodes": return <Nodes />;
    case "events": return <Events />;
    case "access": return <Access />;
    case "checkup": return <Checkup />;
    case "settings": return <SettingsView />;
    default: return <div class="card empty"><h2>Nothing here</h2><p class="muted">The address leads nowhere.</p><a class="btn" href={link("")}>Overview</a></div>;
  }
}


function Title() {
  const { view } = place.value;
  const list = LISTS[view];
  if (list === undefined) return <h1>{TITLES[view]}</h1>;
  return (
    <>
      <a class="muted inline" href={link(list)}><Icon name="left" />{TITLES[list]}</a>
      <span class="faint wide">/</span>
      <bdi class="cut wide">{shownName.value}</bdi>
    </>
  );
}

function drain(): void {
  setDraining(!info.value?.draining).catch((error: unknown) => say(words(error), true));
}

function isDark(): boolean {
  return settings.value.theme === "dark" || (settings.value.theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function Theme() {
  const dark = isDark();
  return <Button icon={dark ? "sun" : "moon"} kind="quiet" class="wide" label={dark ? "Light colours" : "Dark colours"} onClick={() => change({ theme: dark ? "light" : "dark" })} />;
}

function Foot() {
  const service = info.value;
  if (!service) return <div class="foot" />;
  return (
    <div class="foot">
      <span><b>{service.hostname ?? service.name}</b> · {service.version}</span>
      <span>up {duration(Math.max(0, Math.floor((now.value - Date.parse(service.started_at)) / 1000)))} · {service.draining ? "takes no new jobs" : "takes new jobs"}</span>
    </div>
  );
}

const LIVE = { live: "The service says what changes", timer: "The page looks once a second", lost: "The service does not answer" };

function Lost() {
  const { lost, last } = reachable.value;
  const [since, setSince] = useState<number | null>(null);
  useEffect(() => {
    if (lost === null) return setSince(null);
    const timer = setTimeout(() => setSince(lost), Math.max(0, lost + 2000 - Date.now()));
    return () => clearTimeout(timer);
  }, [lost]);
  if (since === null) return null;
  return (
    <div class="banner warn" role="status">
      <Icon name="again" />
      <span class="grow">No answer for {duration(Math.floor((now.value - since) / 1000))}. What you see is from {new Date(last).toLocaleTimeString()}.</span>
      <Button small onClick={() => { tryNow(); void loadInfo(); }}>Try now</Button>
    </div>
  );
}

function Draining() {
  if (!info.value?.draining) return null;
  return (
    <div class="banner warn" role="status">
      <Icon name="warn" />
      <span class="grow">Draining: no new job is taken; {info.value.jobs.running} go on.</span>
      {may("admin") && <a class="btn small" href={link("checkup")}>Check-up</a>}
    </div>
  );
}

let soon: ReturnType<typeof setTimeout> | undefined;
function infoSoon(): void {
  soon ??= setTimeout(() => {
    soon = undefined;
    void loadInfo();
  }, 2000);
}

function useKeysEverywhere(): void {
  useEffect(() => {
    let pending = false;
    const hear = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !settings.value.keys || token.value === undefined) return;
      const target = event.target;
      if (target instanceof HTMLElement && (target.closest("input, textarea, select, dialog, .xterm") !== null)) return;
      const after = pending;
      pending = false;
      if (after) {
        const to = { o: "", j: "jobs", b: "batches", q: "queues", s: "schedules", e: "events", ...(isHub() ? { m: "nodes" } : {}) }[event.key];
        if (to !== undefined) {
          event.preventDefault();
          go(link(to));
        }
        return;
      }
      if (event.key === "g") pending = true;
      else if (event.key === "n" && may("operate")) go(link("run"));
      else if (event.key === "?") document.dispatchEvent(new CustomEvent("procession-help"));
      else if (event.key === "/") document.querySelector<HTMLInputElement>(".jump input")?.focus();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", hear);
    return () => document.removeEventListener("keydown", hear);
  }, []);
}

const keys = (): [string, [string, string][]][] => [
  ["Everywhere", [["/", "jump to a job, or do something; > for all that can be done"], ["g o, g j, g e", "overview, jobs, events"], ["g b, g q, g s", "batches, queues, schedules"], ...(isHub() ? [["g m", "machines: the nodes of the cluster"] as [string, string]] : []), ["n", "run"], ["?", "this"]]],
  ["List", [["j, k", "down, up"], ["Enter", "open"], ["Space", "look at the last lines"], ["x, Shift-x", "select, up to it"], ["s", "stop"], ["r", "again"], ["l", "filter"], ["[, ]", "page"]]],
  ["Job", [["1 to 9", "tabs"], ["s", "stop"], ["p", "pause, resume"], ["r, e", "again, again with changes"], ["b", "notify me when it ends"], ["y, Y", "copy the id, the link"]]],
  ["Log", [["f", "follow"], ["Ctrl-F, n, N", "find, next, previous"], ["Home, End, g g, G", "beginning, end"], [":", "go to"], ["w, t, o", "wrap, times, streams"], ["E", "next line of standard error"], ["d", "download"]]],
];

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose} wide>
      <div class="grid2">
        {keys().map(([title, all]) => (
          <section key={title}>
            <h3 class="small">{title}</h3>
            {all.map(([key, word]) => <div class="charge small" key={key}><kbd>{key}</kbd><span class="muted">{word}</span></div>)}
          </section>
        ))}
      </div>
      <div class="buttons"><Button onClick={onClose}>Close</Button></div>
    </Dialog>
  );
}
