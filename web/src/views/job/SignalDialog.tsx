// Any signal, to the leader, its group or all of it.

import { useState } from "preact/hooks";
import { words } from "../../api/client.ts";
import { Button, Dialog, Field, Input, say, Segments } from "../../parts/parts.tsx";
import { signal } from "../../state/acts.ts";

export function SignalDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [name, setName] = useState("SIGUSR1");
  const [scope, setScope] = useState<"group" | "leader" | "all">("group");
  const [problem, setProblem] = useState("");
  const run = async (): Promise<void> => {
    try {
      const to = await signal(id, name.trim(), scope);
      say(`${name.trim()} sent to ${to === 1 ? "one process" : `${to} processes`}`);
      onClose();
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog title="Send a signal" onClose={onClose}>
      <form class="stack" onSubmit={(event) => { event.preventDefault(); void run(); }}>
        <Field id="signal-name" label="Signal" error={problem || undefined}><Input id="signal-name" mono value={name} bad={problem !== ""} onInput={(event) => setName(event.currentTarget.value)} /></Field>
        <Segments label="To" value={scope} options={[["group", "Its group"], ["leader", "Its leader"], ["all", "All of it"]]} onChange={setScope} />
        <div class="buttons"><Button onClick={onClose}>Leave it</Button><button type="submit" class="btn go">Send</button></div>
      </form>
    </Dialog>
  );
}
