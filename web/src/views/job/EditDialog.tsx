// Name, labels, timeout and how long the record is kept.

import { useState } from "preact/hooks";
import { Problem, words } from "../../api/client.ts";
import { isTerminal, type Job } from "../../api/model.ts";
import { Button, Dialog, Field, Input } from "../../parts/parts.tsx";
import { patch } from "../../state/acts.ts";
import { duration, parseDuration } from "../../state/format.ts";

export function EditDialog({ job, first, onClose, onDone }: { job: Job; first: "name" | "timeout"; onClose: () => void; onDone: (job: Job) => void }) {
  const [name, setName] = useState(job.name ?? "");
  const [labels, setLabels] = useState(Object.entries(job.labels).map(([key, value]) => `${key}=${value}`).join(", "));
  const [timeout, setTimeout_] = useState(job.spec.timeout_seconds === null ? "" : duration(job.spec.timeout_seconds));
  const [ttl, setTtl] = useState(duration(job.spec.ttl_seconds_after_finished));
  const [errors, setErrors] = useState<Record<string, string>>({});
  const ended = isTerminal(job.state) || job.state === "stopping";
  const save = async (): Promise<void> => {
    const body: Record<string, unknown> = {};
    const wrong: Record<string, string> = {};
    if (name !== (job.name ?? "")) body["name"] = name === "" ? null : name;
    const wanted: Record<string, string | null> = {};
    for (const word of labels.split(",").map((one) => one.trim()).filter(Boolean)) {
      const [key, ...value] = word.split("=");
      wanted[key!.trim()] = value.join("=").trim();
    }
    const changed: Record<string, string | null> = {};
    for (const [key, value] of Object.entries(wanted)) if (job.labels[key] !== value) changed[key] = value;
    for (const key of Object.keys(job.labels)) if (!(key in wanted)) changed[key] = null;
    if (Object.keys(changed).length > 0) body["labels"] = changed;
    const seconds = timeout.trim() === "" ? null : parseDuration(timeout);
    if (timeout.trim() !== "" && seconds === null) wrong["timeout_seconds"] = "a duration such as 10 min";
    else if (!ended && timeout !== (job.spec.timeout_seconds === null ? "" : duration(job.spec.timeout_seconds))) body["timeout_seconds"] = seconds;
    const kept = parseDuration(ttl);
    if (kept === null) wrong["ttl_seconds_after_finished"] = "a duration such as 7 d";
    else if (ttl !== duration(job.spec.ttl_seconds_after_finished)) body["ttl_seconds_after_finished"] = kept;
    setErrors(wrong);
    if (Object.keys(wrong).length > 0) return;
    try {
      onDone(Object.keys(body).length === 0 ? job : await patch(job.id, body));
      onClose();
    } catch (error) {
      const at: Record<string, string> = {};
      if (error instanceof Problem) for (const one of error.errors) at[(one.pointer ?? "").split("/")[1] ?? ""] = one.detail;
      setErrors(Object.keys(at).length > 0 ? at : { all: words(error) });
    }
  };
  return (
    <Dialog title="Change the job" onClose={onClose}>
      <form class="stack" onSubmit={(event) => { event.preventDefault(); void save(); }}>
        <Field id="edit-name" label="Name" error={errors["name"]}><Input id="edit-name" maxLength={128} value={name} autofocus={first === "name"} bad={"name" in errors} onInput={(event) => setName(event.currentTarget.value)} /></Field>
        <Field id="edit-labels" label="Labels" hint="key=value, separated by commas" error={errors["labels"]}><Input id="edit-labels" mono value={labels} bad={"labels" in errors} onInput={(event) => setLabels(event.currentTarget.value)} /></Field>
        <div class="grid2">
          {!ended && <Field id="edit-timeout" label="Timeout" hint="counted from its start; empty for none" error={errors["timeout_seconds"]}><Input id="edit-timeout" value={timeout} autofocus={first === "timeout"} bad={"timeout_seconds" in errors} onInput={(event) => setTimeout_(event.currentTarget.value)} /></Field>}
          <Field id="edit-ttl" label="Kept after its end" error={errors["ttl_seconds_after_finished"]}><Input id="edit-ttl" value={ttl} bad={"ttl_seconds_after_finished" in errors} onInput={(event) => setTtl(event.currentTarget.value)} /></Field>
        </div>
        {errors["all"] && <p class="tint-red" role="alert">{errors["all"]}</p>}
        <div class="buttons"><Button onClick={onClose}>Leave it</Button><button type="submit" class="btn go">Change</button></div>
      </form>
    </Dialog>
  );
}
