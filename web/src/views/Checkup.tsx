// What the service is, and whether it takes jobs.

import { get, Problem, words } from "../api/client.ts";
import type { Finding, Info } from "../api/model.ts";
import { Icon, type IconName } from "../parts/Icon.tsx";
import { Broken, Button, Loading, now, say } from "../parts/parts.tsx";
import { bytes, count, duration } from "../state/format.ts";
import { may, setDraining } from "../state/me.ts";
import { useResource } from "../state/resource.ts";

const VERDICTS: Record<Finding["verdict"], [string, IconName, string]> = { ok: ["succeeded", "check", "Good"], problem: ["stopping", "warn", "Problem"], note: ["queued", "eye", "Note"], insecure: ["failed", "warn", "Insecure"] };
/** What is insecure is seen first. */
const ORDER: Finding["verdict"][] = ["insecure", "problem", "note", "ok"];

export function Checkup() {
  const info = useResource((stop) => get<Info>("/info", {}, stop), ["checkup"], ["events"], 5000);
  const ready = useResource(async (stop) => {
    try {
      await get("/readyz", {}, stop);
      return "";
    } catch (error) {
      if (error instanceof Problem && error.status === 503) return error.detail;
      throw error;
    }
  }, ["ready"], [], 5000);
  const doctor = useResource(async (stop) => (may("admin") ? (await get<{ findings: Finding[] }>("/doctor", {}, stop)).findings : []), ["doctor"]);
  if (info.error && !info.data) return <Broken error={info.error} again={info.reload} />;
  if (!info.data) return <Loading />;
  const one = info.data;
  const drain = async (on: boolean): Promise<void> => {
    try {
      await setDraining(on);
      info.reload();
      ready.reload();
    } catch (error) {
      say(words(error), true);
    }
  };
  const notes: [boolean, string][] = [
    [ready.data === "", ready.data === "" ? "New jobs are taken." : `New jobs are not taken: ${ready.data ?? "not known"}.`],
    [one.containment.cgroup !== null && one.containment.controllers.length > 0, one.containment.cgroup !== null ? `cgroup v2 is used; it can limit ${one.containment.controllers.join(", ") || "nothing"}.` : `cgroup v2 is not used: ${one.containment.cgroup_unavailable}. Limits of jobs are refused.`],
    [one.sandbox.landlock_abi !== null && one.sandbox.seccomp, one.sandbox.landlock_abi !== null && one.sandbox.seccomp ? `The kernel has Landlock ${one.sandbox.landlock_abi} and seccomp; the default is ${one.sandbox.default}.` : "The kernel lacks a part of the sandbox."],
    [one.damaged_records === 0, one.damaged_records === 0 ? "No record was found damaged." : `${one.damaged_records} damaged records were put aside.`],
  ];
  return (
    <div class="stack">
      <div class="card">
        <header class="headed"><h2>Findings</h2></header>
        {notes.map(([good, text]) => <div class="choice finding" key={text}><span class={`state ${good ? "succeeded" : "stopping"}`}><Icon name={good ? "check" : "eye"} />{good ? "Good" : "A look"}</span><span>{text}</span></div>)}
      </div>
      {may("admin") && (
        <div class="card">
          <header class="headed"><h2>Security</h2><span class="sub">as “procession doctor” says it</span><div class="grow" /><Button small icon="again" label="Look again" onClick={doctor.reload} /></header>
          {doctor.data === null ? <p class="muted pad">{doctor.error ? words(doctor.error) : "Looking …"}</p> : [...doctor.data].sort((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict)).map((one) => <div class="choice finding" key={`${one.about} ${one.text}`}><span class={`state ${VERDICTS[one.verdict][0]}`}><Icon name={VERDICTS[one.verdict][1]} />{VERDICTS[one.verdict][2]}</span><span><b class="small">{one.about}</b> <bdi class="muted">{one.text}</bdi></span></div>)}
        </div>
      )}
      <div class="card">
        <header><h2>Service</h2><div class="grow" />{may("admin") && <Button small onClick={() => void drain(!one.draining)}>{one.draining ? "Take jobs again" : "Drain"}</Button>}</header>
        <dl class="facts wide3">
          {one.hostname && <><dt>Host</dt><dd>{one.hostname}</dd></>}
          <dt>Version</dt><dd>{one.version}{one.commit && <span class="faint"> · {one.commit}</span>}</dd>
          <dt>Up</dt><dd>{duration(Math.max(0, Math.floor((now.value - Date.parse(one.started_at)) / 1000)))}, the server was restarted {one.server_restarts} times</dd>
          <dt>Processes</dt><dd>server {one.server_pid}, supervisor {one.supervisor_pid}</dd>
          <dt>Running</dt><dd>{count(one.jobs.running)} of {count(one.jobs.max_running)}</dd>
          <dt>Queued</dt><dd>{count(one.jobs.queued)} of {count(one.jobs.max_queued)}</dd>
          {one.cpus !== null && <><dt>Machine</dt><dd>{one.cpus} cores{one.memory_bytes !== null && `, ${bytes(one.memory_bytes)} of memory`}</dd></>}
          {one.free_bytes !== null && <><dt>Disk</dt><dd>{bytes(one.free_bytes)} free{one.disk_bytes !== null && ` of ${bytes(one.disk_bytes)}`}</dd></>}
          <dt>Output</dt><dd>{bytes(one.output_bytes)} kept, of jobs that have ended</dd>
          <dt>Runs</dt><dd>{one.policy ? "templates of its policy only" : "any command"}</dd>
        </dl>
      </div>
    </div>
  );
}
