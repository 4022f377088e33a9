// A schedule as a form, with the times that it would be due at.

import { useEffect, useState } from "preact/hooks";
import { Problem, send, words } from "../../api/client.ts";
import type { Schedule } from "../../api/model.ts";
import { Button, Dialog, Field, Input, Segments } from "../../parts/parts.tsx";
import { moment } from "../../state/format.ts";
import { bodyOf, formOf, type How, MISSED, OVERLAP, placed, type ScheduleForm, timesOf } from "./schedules.ts";

export function ScheduleDialog({ schedule, onClose }: { schedule: Schedule | null; onClose: (made: string | null) => void }) {
  const [form, setForm] = useState<ScheduleForm>(() => formOf(schedule, Intl.DateTimeFormat().resolvedOptions().timeZone));
  const [errors, setErrors] = useState<Record<string, string>>({});
  const set = (part: Partial<ScheduleForm>): void => {
    setForm({ ...form, ...part });
    setErrors({});
  };
  const refused = (error: unknown): void => {
    const at = error instanceof Problem ? placed(error.errors) : {};
    setErrors(Object.keys(at).length > 0 ? at : { "": error instanceof Problem && error.status === 412 ? "There is a schedule of this name already." : words(error) });
  };
  const save = async (): Promise<void> => {
    const { body, errors: early } = bodyOf(form, schedule !== null);
    if (Object.keys(early).length > 0) return setErrors(early);
    const name = form.name.trim();
    try {
      if (schedule) await send("PATCH", `/schedules/${encodeURIComponent(name)}`, { body, type: "application/merge-patch+json", headers: { "If-Match": `"${schedule.version}"` } });
      else await send("PUT", `/schedules/${encodeURIComponent(name)}`, { body, headers: { "If-None-Match": "*" } });
      onClose(name);
    } catch (error) {
      refused(error);
    }
  };
  const text = (name: "name" | "cron" | "every" | "zone", label: string, hint: string, placeholder = "") => (
    <Field id={`schedule-${name}`} label={label} hint={hint} error={errors[name]}><Input id={`schedule-${name}`} mono={name === "cron"} value={form[name]} bad={name in errors} placeholder={placeholder} onInput={(event) => set({ [name]: event.currentTarget.value })} /></Field>
  );
  const choice = (name: "overlap" | "missed", label: string, options: [string, string][]) => (
    <Field id={`schedule-${name}`} label={label} error={errors[name]}><select id={`schedule-${name}`} class="input" value={form[name]} onChange={(event) => set({ [name]: event.currentTarget.value })}>{options.map(([key, word]) => <option key={key} value={key}>{word}</option>)}</select></Field>
  );
  const area = (name: "at" | "script", label: string, hint: string, rows: number) => (
    <Field id={`schedule-${name}`} label={label} hint={hint} error={errors[name]}><textarea id={`schedule-${name}`} class={`input mono ${name in errors ? "bad" : ""}`} rows={rows} spellcheck={false} aria-invalid={name in errors ? "true" : undefined} aria-describedby={name in errors ? `schedule-${name}-error` : undefined} value={form[name]} onInput={(event) => set({ [name]: event.currentTarget.value })} /></Field>
  );
  return (
    <Dialog title={schedule ? <span>Change <bdi>{schedule.name}</bdi></span> : "A schedule"} onClose={() => onClose(null)} wide>
      <form class="stack" noValidate onSubmit={(event) => { event.preventDefault(); void save(); }}>
        {!schedule && text("name", "Name", "letters, digits, - _ .", "nightly")}
        <Segments<How> label="When" value={form.how} options={[["cron", "By the clock"], ["every", "Every"], ["at", "At moments"]]} onChange={(how) => set({ how })} />
        {form.how === "cron" && <div class="grid2">{text("cron", "Times", "minute, hour, day, month, weekday", "30 2 * * *")}{text("zone", "Time zone", "such as Europe/Berlin")}</div>}
        {form.how === "every" && text("every", "Every", "of elapsed time", "5 min")}
        {form.how === "at" && area("at", "Moments", "one a line, such as 2027-01-31T09:00:00Z", 3)}
        <Preview form={form} onRefused={refused} />
        <div class="grid2">{choice("overlap", "When its last job has not ended", OVERLAP)}{choice("missed", "Of missed times", MISSED)}</div>
        {!schedule && area("script", "Script", "what each of its jobs runs", 4)}
        {errors[""] && <p class="tint-red small" role="alert">{errors[""]}</p>}
        <div class="buttons"><Button onClick={() => onClose(null)}>Cancel</Button><Button kind="go" type="submit">{schedule ? "Change" : "Make it"}</Button></div>
      </form>
    </Dialog>
  );
}

/** The next times, when somebody asks for them. */
function Preview({ form, onRefused }: { form: ScheduleForm; onRefused: (error: unknown) => void }) {
  const [times, setTimes] = useState<string[] | null>(null);
  const { body, errors } = timesOf(form);
  const wish = JSON.stringify(body);
  useEffect(() => setTimes(null), [wish]);
  const look = async (): Promise<void> => {
    try {
      setTimes((await (await send("POST", "/schedules/times", { body: { ...body, count: 5 } })).json()).times);
    } catch (error) {
      onRefused(error);
    }
  };
  return (
    <div class="inline wraps">
      <Button small icon="clock" disabled={Object.keys(errors).length > 0} onClick={() => void look()}>Its next times</Button>
      {times !== null && <span class="small muted" role="status">{times.length === 0 ? "None." : times.map((at) => moment(at, Date.now(), "local")).join(" · ")}</span>}
    </div>
  );
}
