// What is done with schedules, from the list and from the view of one.

import { send, words } from "../../api/client.ts";
import type { Job, Schedule } from "../../api/model.ts";
import { say } from "../../parts/parts.tsx";

const path = (name: string): string => `/schedules/${encodeURIComponent(name)}`;

async function told(work: () => Promise<string>): Promise<void> {
  try {
    say(await work());
  } catch (error) {
    say(words(error), true);
  }
}

export async function runNow(schedule: Schedule, then: (job: Job) => void): Promise<void> {
  await told(async () => {
    then(await (await send("POST", `${path(schedule.name)}/run`)).json());
    return `${schedule.name} has made a job`;
  });
}

export async function setPaused(schedule: Schedule, paused: boolean): Promise<void> {
  await told(async () => {
    await send("PATCH", path(schedule.name), { body: { paused }, type: "application/merge-patch+json" });
    return paused ? `${schedule.name} makes no jobs` : `${schedule.name} makes jobs again`;
  });
}

export async function remove(schedule: Schedule): Promise<void> {
  await send("DELETE", path(schedule.name));
}
