// The job that is shown, for the frame.

import { signal } from "@preact/signals";

export const shownName = signal("");
