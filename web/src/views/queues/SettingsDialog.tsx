// What is set of a queue, as a form.

import { useState } from "preact/hooks";
import { Problem, send, words } from "../../api/client.ts";
import type { Queue } from "../../api/model.ts";
import { Button, Dialog, Field, Input } from "../../parts/parts.tsx";
import { FIELDS, formOf, patchOf, type QueueForm } from "./queues.ts";

export function SettingsDialog({ queue, onClose }: { queue: Queue | null; onClose: () => void }) {
  const [form, setForm] = useState<QueueForm>(() => formOf(queue));
  const [errors, setErrors] = useState<Record<string, string>>({});
  const save = async (): Promise<void> => {
    const { body, errors: early } = patchOf(form);
    if (Object.keys(early).length > 0) return setErrors(early);
    try {
      await send("PATCH", `/queues/${encodeURIComponent(form.name.trim())}`, { body, type: "application/merge-patch+json" });
      onClose();
    } catch (error) {
      const placed = error instanceof Problem ? error.errors.map((one) => [FIELDS[(one.pointer ?? "").split("/")[1] ?? ""] ?? "", one.detail] as const) : [];
      setErrors(placed.length > 0 ? Object.fromEntries(placed) : { "": error instanceof Problem && error.status === 404 ? "This is no name of a queue." : words(error) });
    }
  };
  const text = (name: keyof QueueForm, label: string, hint: string, placeholder = "") => (
    <Field id={`queue-${name}`} label={label} hint={hint} error={errors[name]}>
      <Input id={`queue-${name}`} value={form[name]} bad={name in errors} placeholder={placeholder} onInput={(event) => { setForm({ ...form, [name]: event.currentTarget.value }); setErrors({}); }} />
    </Field>
  );
  return (
    <Dialog title={queue ? <span>Settings of <bdi>{queue.name}</bdi></span> : "Settings of a queue"} onClose={onClose} wide>
      <form class="stack" noValidate onSubmit={(event) => { event.preventDefault(); void save(); }}>
        {!queue && text("name", "Queue", "jobs may name it already", "render")}
        <div class="grid2">
          {text("maxRunning", "Most running", "in weights of jobs", "no limit of its own")}
          {text("maxQueued", "Most waiting", "more jobs are refused", "no limit of its own")}
          {text("starts", "Starts", "at most so many", "no limit")}
          {text("per", "In", "any window of this length", "1 min")}
          {text("fairBy", "Turns by", "created_by, or the key of a label", "none")}
          {text("priority", "Default priority", "of jobs without one", "0")}
        </div>
        {errors[""] && <p class="tint-red small" role="alert">{errors[""]}</p>}
        <div class="buttons"><Button onClick={onClose}>Cancel</Button><Button kind="go" type="submit">Set</Button></div>
      </form>
    </Dialog>
  );
}
