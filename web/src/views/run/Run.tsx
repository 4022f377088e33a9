// The form that runs a job, or one again with changes.

import { useEffect, useState } from "preact/hooks";
import { get, key, Problem, sendThrough, words } from "../../api/client.ts";
import type { Job, Template } from "../../api/model.ts";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { Broken, Button, Field, Input, Loading, say, Segments } from "../../parts/parts.tsx";
import { go, link, place } from "../../router.ts";
import { info, may } from "../../state/me.ts";
import { asJson, type Submission } from "../../state/same.ts";
import { moment } from "../../state/format.ts";
import { useResource } from "../../state/resource.ts";
import { nameOf } from "../../state/words.ts";
import { Same } from "./Same.tsx";
import { TemplateForm } from "./TemplateForm.tsx";
import { difference, EMPTY, type Errors, type Form, formOf, type Kind, placed, submission } from "./form.ts";

const DRAFT = "procession.draft";

function draft(): Form {
  try {
    const kept = JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}");
    return { ...EMPTY, ...kept };
  } catch {
    return EMPTY;
  }
}

/** Secrets are not kept, nor is JSON, which may have some. */
function keep(form: Form): void {
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify({ ...form, json: "", kind: form.kind === "json" ? "script" : form.kind, env: form.env.map((one) => (one.secret ? { ...one, value: "" } : one)) }));
  } catch {
    // It lasts as long as the view.
  }
}

export function Run() {
  const id = place.value.query.get("again");
  const [job, setJob] = useState<Job | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    setJob(null);
    if (id !== null) get<Job>(`/jobs/${id}`).then(setJob, setError);
  }, [id]);
  if (!may("operate")) return <div class="card empty"><h2>You may look</h2><p class="muted">To run jobs, ask for a token of the scope operate.</p></div>;
  if (info.value === null) return <Loading />;
  if (id === null && (info.value.policy || place.value.query.has("template"))) return <TemplateForm only={info.value.policy} />;
  if (id !== null && error) return <Broken error={error} />;
  if (id !== null && !job) return <Loading />;
  return <RunForm key={id ?? ""} from={job} />;
}

function RunForm({ from }: { from: Job | null }) {
  const [start] = useState(() => (from ? formOf(from) : draft()));
  const [form, setForm] = useState<Form>(start);
  const [errors, setErrors] = useState<Errors>({});
  const [busy, setBusy] = useState(false);
  const [valid, setValid] = useState(false);
  const [opens, setOpens] = useState(true);
  const [idempotency, setIdempotency] = useState(key);
  const set = (part: Partial<Form>): void => {
    const next = { ...form, ...part };
    setForm(next);
    setValid(false);
    const touched = Object.keys(part);
    if (touched.some((name) => name in errors)) setErrors(Object.fromEntries(Object.entries(errors).filter(([name]) => !touched.includes(name))));
    if (!from) keep(next);
    // Another job is another request.
    setIdempotency(key());
  };
  const kind = (next: Kind): void => {
    if (next === "json" && form.kind !== "json") set({ kind: next, json: asJson(submission(form).body) });
    else set({ kind: next });
  };
  const { body, errors: early } = submission(form);
  const templates = useResource((stop) => get<{ templates: Template[] }>("/templates", {}, stop), ["templates"]);
  const changes = from ? difference(submission(start).body, body) : {};

  const send = async (check: boolean): Promise<void> => {
    // A button that is disabled loses the focus, and with it the keys of the form.
    if (busy) return;
    if (Object.keys(early).length > 0) {
      setErrors(early);
      return focusFirst();
    }
    setBusy(true);
    try {
      if (check) {
        await sendThrough("POST", "/jobs/validate", { body });
        setErrors({});
        setValid(true);
      } else {
        const answer = from
          ? await sendThrough("POST", `/jobs/${from.id}/rerun`, { body: patchOf(changes, body), type: "application/merge-patch+json", headers: idempotency })
          : await sendThrough("POST", "/jobs", { body, headers: idempotency });
        const made = (await answer.json()) as Job;
        if (!from) sessionStorage.removeItem(DRAFT);
        if (opens) go(link(`jobs/${made.id}`));
        else {
          say(`Runs: ${nameOf(made)}`);
          setIdempotency(key());
        }
      }
    } catch (problem) {
      setValid(false);
      if (problem instanceof Problem && problem.errors.length > 0) {
        setErrors(placed(problem.errors, form.kind));
        focusFirst();
      } else {
        const at: Record<string, string> = { no_such_user: "user", privilege_required: "user", containment_unavailable: "memory", sandbox_unavailable: "sandbox", sandbox_required: "sandbox" };
        setErrors({ [problem instanceof Problem ? (at[problem.code] ?? "") : ""]: words(problem) });
      }
    }
    setBusy(false);
  };

  return (
    <form class="form" noValidate onSubmit={(event) => { event.preventDefault(); void send(false); }} onKeyDown={(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void send(false); } }}>
      <div class="stack">
        <Main form={form} set={set} kind={kind} errors={errors} />
        {form.kind !== "json" && <Environment form={form} set={set} error={errors["env"]} />}
        {form.kind !== "json" && <More form={form} set={set} errors={errors} />}
      </div>
      <div class="stack">
        {!from && templates.data && templates.data.templates.length > 0 && <p class="small"><a class="plain" href={link("run", { template: templates.data.templates[0]!.name })}>From a template …</a></p>}
        <div class="card pad">
          <h2 class="small">{valid ? "Valid" : "Ready to run"}</h2>
          {from && <p class="muted small">Again, from <a class="plain" href={link(`jobs/${from.id}`)}><bdi>{nameOf(from)}</bdi></a> of {moment(from.created_at, Date.now(), "local")}. {Object.keys(changes).length > 0 ? <>Changed: <bdi>{Object.keys(changes).map((field) => field.replace(/_seconds$/, "").replaceAll("_", " ")).join(", ")}</bdi>.</> : "Nothing is changed."}</p>}
          {valid && <p class="tint-green small">The service takes it as it is.</p>}
          {errors[""] && <p class="tint-red small" role="alert">{errors[""]}</p>}
          {Object.keys(errors).length > 0 && <p class="tint-red small" role="alert">{Object.keys(errors).length === 1 ? "One field needs a look." : `${Object.keys(errors).length} fields need a look.`}</p>}
          <div class="inline"><button type="submit" class="btn go grow">Run <span aria-hidden="true">Ctrl ↵</span></button><Button onClick={() => void send(true)}>Only check</Button></div>
          <label class="muted small inline"><input type="checkbox" checked={opens} onChange={() => setOpens(!opens)} />Open its output when it starts</label>
        </div>
        <Same body={body} />
      </div>
    </form>
  );
}

/** Secrets are given again in any case. */
function patchOf(changes: Record<string, unknown>, body: Submission): Record<string, unknown> {
  return body["secret_env"] === undefined ? changes : { ...changes, secret_env: body["secret_env"] };
}

function focusFirst(): void {
  setTimeout(() => {
    const field = document.querySelector<HTMLElement>("[aria-invalid=true]");
    const section = field?.closest("details");
    if (section) section.open = true;
    field?.focus();
  });
}

interface Part {
  form: Form;
  set: (part: Partial<Form>) => void;
  errors: Errors;
}

function Text({ form, set, errors, name, label, hint, mono = false, placeholder }: Part & { name: "name" | "cwd" | "timeout" | "labels" | "stopSignal" | "grace" | "exitCodes" | "ttl" | "memory" | "cpu" | "pids" | "user" | "maxOutput" | "queue" | "priority" | "webhook"; label: string; hint?: string; mono?: boolean; placeholder?: string }) {
  return (
    <Field id={`run-${name}`} label={label} error={errors[name]} {...(hint ? { hint } : {})}>
      <Input id={`run-${name}`} name={name} value={form[name]} bad={name in errors} mono={mono} {...(placeholder ? { placeholder } : {})} onInput={(event) => set({ [name]: event.currentTarget.value })} />
    </Field>
  );
}

function Main({ form, set, kind, errors }: Part & { kind: (next: Kind) => void }) {
  const area = (name: "script" | "command" | "json", label: string, rows: number, hint: string) => (
    <Field id={`run-${name}`} label={label} error={errors[name]} hint={hint}>
      <textarea id={`run-${name}`} class={`input ${name in errors ? "bad" : ""}`} rows={rows} spellcheck={false} autocapitalize="off" aria-invalid={name in errors ? "true" : undefined} aria-describedby={name in errors ? `run-${name}-error` : undefined} value={form[name]} onInput={(event) => set({ [name]: event.currentTarget.value })} />
    </Field>
  );
  return (
    <div class="card pad">
      <div class="inline wraps">
        <Segments label="Kind" value={form.kind} options={[["script", "Script"], ["command", "Command"], ["terminal", "Terminal"], ["json", "JSON"]]} onChange={kind} />
        <span class="grow" />
        <span class="faint small">{form.kind === "script" ? <>run by <span class="mono">/bin/sh -c</span></> : form.kind === "json" ? "the whole request" : "without a shell"}</span>
      </div>
      {form.kind === "script" && area("script", "Script", 6, "")}
      {form.kind === "command" && area("command", "Command", 4, "one argument a line")}
      {form.kind === "terminal" && area("command", "Command", 2, "one argument a line, such as bash; it gets a terminal")}
      {form.kind === "json" && area("json", "Request", 18, "")}
      {form.kind !== "json" && (
        <>
          <div class="grid3">
            <Text form={form} set={set} errors={errors} name="name" label="Name" />
            <Text form={form} set={set} errors={errors} name="cwd" label="Directory" mono placeholder="as the service" />
            <Text form={form} set={set} errors={errors} name="timeout" label="Timeout" placeholder="none" hint="counted from its start" />
          </div>
          <Text form={form} set={set} errors={errors} name="labels" label="Labels" mono placeholder="team=web env=prod" />
        </>
      )}
    </div>
  );
}

function Environment({ form, set, error }: { form: Form; set: (part: Partial<Form>) => void; error: string | undefined }) {
  const put = (index: number, part: Partial<Form["env"][number]>): void => set({ env: form.env.map((one, i) => (i === index ? { ...one, ...part } : one)) });
  return (
    <div class="card">
      <header class="headed"><h2>Environment</h2><div class="grow" /><Button small icon="plus" onClick={() => set({ env: [...form.env, { name: "", value: "", secret: false }] })}>Variable</Button></header>
      {form.env.map((one, index) => (
        <div class="envrow" key={index}>
          <Input id={`env-name-${index}`} mono aria-label="Name of the variable" placeholder="NAME" value={one.name} bad={error !== undefined && one.name === ""} onInput={(event) => put(index, { name: event.currentTarget.value })} />
          <Input id={`env-value-${index}`} mono aria-label={`Value of ${one.name || "the variable"}`} {...(one.secret ? { type: "password" as const } : { type: "text" as const })} autocomplete={one.secret ? "new-password" : "off"} placeholder={one.secret ? "given again, since it is kept nowhere" : "value"} value={one.value} onInput={(event) => put(index, { value: event.currentTarget.value })} />
          <label class={`inline small ${one.secret ? "tint-violet" : "faint"}`}><input type="checkbox" checked={one.secret} onChange={() => put(index, { secret: !one.secret })} />secret</label>
          <Button small kind="quiet" icon="close" label={`Without ${one.name || "this variable"}`} onClick={() => set({ env: form.env.filter((_, i) => i !== index) })} />
        </div>
      ))}
      {error && <p class="tint-red small pad">{error}</p>}
    </div>
  );
}

function Section({ icon, title, now, open, children }: { icon: IconName; title: string; now: string; open: boolean; children: preact.ComponentChildren }) {
  return (
    <details class="section" open={open}>
      <summary><Icon name={icon} />{title}<span class="faint">{now}</span><span class="chev"><Icon name="down" /></span></summary>
      <div class="pad">{children}</div>
    </details>
  );
}

function More({ form, set, errors }: Part) {
  const has = (...names: string[]): boolean => names.some((name) => name in errors);
  const text = { form, set, errors };
  const limits = [form.memory, form.cpu && `${form.cpu} cores`, form.pids && `${form.pids} processes`].filter(Boolean).join(", ");
  return (
    <div class="card">
      <Section icon="stop" title="Stop and end" now={`${form.stopSignal || (form.kind === "terminal" ? "SIGHUP" : "SIGTERM")}, ${form.grace || "10 s"} of grace`} open={has("stopSignal", "grace", "exitCodes", "ttl", "waitFor")}>
        <div class="grid3">
          <Text {...text} name="stopSignal" label="Signal" mono placeholder={form.kind === "terminal" ? "SIGHUP" : "SIGTERM"} />
          <Text {...text} name="grace" label="Grace" placeholder="10 s" />
          <Text {...text} name="exitCodes" label="Codes of success" placeholder="0" />
          <Field id="run-waitFor" label="It ends with"><select id="run-waitFor" class="input" value={form.waitFor} onChange={(event) => set({ waitFor: event.currentTarget.value as Form["waitFor"] })}><option value="leader">its first process</option><option value="all">its last process</option></select></Field>
          <Text {...text} name="ttl" label="Kept after its end" placeholder="7 d" />
        </div>
      </Section>
      <Section icon="limits" title="Limits" now={limits || "none"} open={has("memory", "cpu", "pids")}>
        <div class="grid3"><Text {...text} name="memory" label="Memory" placeholder="no limit" /><Text {...text} name="cpu" label="Cores" placeholder="no limit" /><Text {...text} name="pids" label="Processes" placeholder="no limit" /></div>
      </Section>
      <Section icon="access" title="User and sandbox" now={[form.user || "the service's user", form.sandbox || "the default"].join(", ")} open={has("user", "sandbox")}>
        <div class="grid2">
          <Text {...text} name="user" label="User" mono placeholder="the service's" hint="needs a service that runs as root" />
          <Field id="run-sandbox" label="Sandbox" error={errors["sandbox"]}><select id="run-sandbox" class="input" value={form.sandbox} onChange={(event) => set({ sandbox: event.currentTarget.value as Form["sandbox"] })}><option value="">as the service has it</option><option value="default">on</option><option value="require">on, or not at all</option><option value="off">off</option></select></Field>
        </div>
      </Section>
      <Section icon="output" title="Output and input" now={`${form.maxOutput || "64 MiB"} kept, ${{ drop_oldest: "the oldest goes", drop_newest: "the newest goes", stop_job: "then it is stopped", wait: "then it waits for a reader" }[form.onLimit]}`} open={has("maxOutput", "stdin")}>
        <div class="grid3">
          <Text {...text} name="maxOutput" label="At most" placeholder="64 MiB" />
          <Field id="run-onLimit" label="Beyond that"><select id="run-onLimit" class="input" value={form.onLimit} onChange={(event) => set({ onLimit: event.currentTarget.value as Form["onLimit"] })}><option value="drop_oldest">the oldest is dropped</option><option value="drop_newest">the newest is dropped</option><option value="stop_job">the job is stopped</option><option value="wait">the job waits for a reader</option></select></Field>
          <div class="stack"><label class="inline small"><input type="checkbox" checked={form.merge} onChange={() => set({ merge: !form.merge })} />standard error into standard output</label>{form.kind !== "terminal" && <label class="inline small"><input type="checkbox" checked={form.stdin} onChange={() => set({ stdin: !form.stdin })} />standard input stays open</label>}</div>
        </div>
      </Section>
      <Section icon="queue" title="Queue" now={`${form.queue || "default"}, priority ${form.priority || 0}`} open={has("queue", "priority")}>
        <div class="grid2"><Text {...text} name="queue" label="Queue" placeholder="default" /><Text {...text} name="priority" label="Priority" placeholder="0" hint="higher starts first" /></div>
      </Section>
      <Section icon="events" title="Webhooks" now={form.webhook || "none"} open={has("webhook")}>
        <Text {...text} name="webhook" label="Addresses" mono placeholder="https://example.org/hook" hint="of http or https, separated by spaces" />
      </Section>
    </div>
  );
}
