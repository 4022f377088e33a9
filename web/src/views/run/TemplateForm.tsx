// The form where a command policy holds: a template and its parameters, and nothing else.

import { useState } from "preact/hooks";
import { get, key, Problem, sendThrough, words } from "../../api/client.ts";
import type { Job, Template } from "../../api/model.ts";
import { Broken, Button, Field, Input, Loading } from "../../parts/parts.tsx";
import { go, link, place, requery } from "../../router.ts";
import { commandLine } from "../../state/format.ts";
import { useResource } from "../../state/resource.ts";
import { Same } from "./Same.tsx";
import { commandOf, parameters, type Parameter, placedAt, submissionOf } from "./template.ts";

/** `only`: the service runs nothing else. */
export function TemplateForm({ only }: { only: boolean }) {
  const list = useResource((stop) => get<{ templates: Template[] }>("/templates", {}, stop), ["templates"]);
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading />;
  const { templates } = list.data;
  if (templates.length === 0) return <div class="card empty"><h2>{only ? "Nothing can be run" : "No template"}</h2><p class="muted">The policy of the service has no template.</p>{!only && <a class="btn" href={link("run")}>A command</a>}</div>;
  const wanted = place.value.query.get("template");
  const template = templates.find((one) => one.name === wanted) ?? templates[0]!;
  return <Form key={template.name} template={template} templates={templates} only={only} />;
}

function Form({ template, templates, only }: { template: Template; templates: Template[]; only: boolean }) {
  const [values, setValues] = useState<Record<string, string>>({});
  const [name, setName] = useState("");
  const [labels, setLabels] = useState("");
  const [errors, setErrors] = useState<Record<string, string>>({});
  const [busy, setBusy] = useState(false);
  const [valid, setValid] = useState(false);
  const [idempotency, setIdempotency] = useState(key);
  const { body, errors: early } = submissionOf(template, values, name, labels);
  const touch = (field: string): void => {
    setErrors(Object.fromEntries(Object.entries(errors).filter(([one]) => one !== field && one !== "")));
    setValid(false);
    setIdempotency(key());
  };
  const send = async (check: boolean): Promise<void> => {
    // A button that is disabled loses the focus, and with it the keys of the form.
    if (busy) return;
    if (Object.keys(early).length > 0) return wrong(early);
    setBusy(true);
    try {
      if (check) {
        await sendThrough("POST", "/jobs/validate", { body });
        setErrors({});
        setValid(true);
      } else {
        const made = (await (await sendThrough("POST", "/jobs", { body, headers: idempotency })).json()) as Job;
        go(link(`jobs/${made.id}`));
      }
    } catch (problem) {
      wrong(problem instanceof Problem && problem.errors.length > 0 ? placedAt(problem.errors, template) : { "": words(problem) });
    }
    setBusy(false);
  };
  const wrong = (found: Record<string, string>): void => {
    setErrors(found);
    setTimeout(() => document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
  };
  return (
    <form class="form" noValidate onSubmit={(event) => { event.preventDefault(); void send(false); }} onKeyDown={(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void send(false); } }}>
      <div class="stack">
        <div class="card pad">
          <Field id="template" label="Template" hint={only ? "this service runs these and nothing else" : <a class="plain" href={link("run")}>A command of your own instead</a>}>
            <select id="template" class="input" value={template.name} onChange={(event) => requery(new URLSearchParams({ template: event.currentTarget.value }), "replace")}>{templates.map((one) => <option key={one.name} value={one.name}>{one.name}</option>)}</select>
          </Field>
          <code class="mono box" aria-label="Command"><bdi>{commandLine({ command: commandOf(template, values) })}</bdi></code>
        </div>
        <div class="card pad">
          <h2 class="small">Parameters</h2>
          {parameters(template).length === 0 && <p class="muted small">It has none.</p>}
          <div class="grid2">{parameters(template).map((one) => <ParameterField key={one.name} one={one} value={values[one.name] ?? one.first} error={errors[one.name]} onChange={(value) => { setValues({ ...values, [one.name]: value }); touch(one.name); }} />)}</div>
        </div>
        <div class="card pad">
          <div class="grid2">
            <Field id="template-name" label="Name" error={errors["name"]}><Input id="template-name" value={name} bad={"name" in errors} onInput={(event) => { setName(event.currentTarget.value); touch("name"); }} /></Field>
            <Field id="template-labels" label="Labels" error={errors["labels"]}><Input id="template-labels" mono placeholder="team=web env=prod" value={labels} bad={"labels" in errors} onInput={(event) => { setLabels(event.currentTarget.value); touch("labels"); }} /></Field>
          </div>
        </div>
      </div>
      <div class="stack">
        <div class="card pad">
          <h2 class="small">{valid ? "Valid" : "Ready to run"}</h2>
          {valid && <p class="tint-green small">The service takes it as it is.</p>}
          {errors[""] && <p class="tint-red small" role="alert">{errors[""]}</p>}
          {Object.keys(errors).length > 0 && <p class="tint-red small" role="alert">{Object.keys(errors).length === 1 ? "One field needs a look." : `${Object.keys(errors).length} fields need a look.`}</p>}
          <div class="inline"><button type="submit" class="btn go grow">Run <span aria-hidden="true">Ctrl ↵</span></button><Button onClick={() => void send(true)}>Only check</Button></div>
        </div>
        <Same body={body} />
      </div>
    </form>
  );
}

function ParameterField({ one, value, error, onChange }: { one: Parameter; value: string; error: string | undefined; onChange: (value: string) => void }) {
  const id = `param-${one.name}`;
  return (
    <Field id={id} label={one.name} hint={one.hint} error={error}>
      {one.kind === "choice" ? (
        <select id={id} class={`input ${error ? "bad" : ""}`} aria-invalid={error ? "true" : undefined} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {value === "" && <option value="">choose …</option>}
          {one.choices.map((choice) => <option key={choice} value={choice}>{choice}</option>)}
        </select>
      ) : (
        <Input id={id} mono={one.kind !== "integer"} {...(one.kind === "integer" ? { inputMode: "numeric" as const } : {})} value={value} bad={error !== undefined} onInput={(event) => onChange(event.currentTarget.value)} />
      )}
    </Field>
  );
}
