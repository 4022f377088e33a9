// A place in the log that somebody types.

import { useState } from "preact/hooks";
import { Button, Dialog, Field, Input } from "../parts/parts.tsx";
import { type Goto, parseGoto } from "./place.ts";

const WAYS = "a line (12345), a byte (b4096), a part (50%) or a time (14:02)";

export function GoTo({ day, onGo, onClose }: { day: Date; onGo: (to: Goto) => void; onClose: () => void }) {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState(false);
  const submit = (event: Event): void => {
    event.preventDefault();
    const to = parseGoto(text.replace(/^:/, ""), day);
    if (to === null) return setWrong(true);
    onClose();
    onGo(to);
  };
  return (
    <Dialog title="A place in the output" onClose={onClose}>
      <form class="stack" noValidate onSubmit={submit}>
        <Field id="goto" label="Go to" hint={WAYS} error={wrong ? `must be ${WAYS}` : undefined}>
          <Input id="goto" mono bad={wrong} value={text} onInput={(event) => { setText(event.currentTarget.value); setWrong(false); }} />
        </Field>
        <div class="buttons"><Button onClick={onClose}>Cancel</Button><Button kind="go" type="submit">Go</Button></div>
      </form>
    </Dialog>
  );
}
