// The way in: a one-time code from the terminal, or a token.

import { useEffect, useState } from "preact/hooks";
import { Problem, words } from "../api/client.ts";
import { over, session } from "../api/session.ts";
import { Logo } from "../parts/Icon.tsx";
import { Button, copy, Field, Input } from "../parts/parts.tsx";
import { go, link, place } from "../router.ts";
import { signIn, whoAmI } from "../state/me.ts";

/** Takes the code out of the address before anything else happens. */
function codeOf(): string | null {
  const found = /^#code=([A-Za-z0-9]{1,64})(?:&job=([0-9a-f-]{36}))?$/.exec(location.hash);
  if (location.hash !== "") history.replaceState(null, "", `${location.pathname}${location.search}`);
  if (!found) return null;
  next = found[2] ? link(`jobs/${found[2]}`) : link("");
  return found[1]!;
}

let next: string | null = null;
const CODE = codeOfOnce();

function codeOfOnce(): string | null {
  return place.value.view === "signin" ? codeOf() : null;
}

let used = false;

/** A code is about to be used: who one is need not be asked before. */
export function codeWaits(): boolean {
  return CODE !== null && session.value === undefined;
}

export function SignIn({ alone = false }: { alone?: boolean }) {
  const [text, setText] = useState("");
  const [stay, setStay] = useState(false);
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);

  const leave = (): void => {
    if (place.value.view === "signin") go(next ?? link(""), "replace");
  };
  const enter = async (proof: { code: string } | { token: string }): Promise<void> => {
    setBusy(true);
    setProblem("");
    try {
      await signIn(proof, stay);
      setText("");
      leave();
    } catch (error) {
      const refused = error instanceof Problem && error.status === 401;
      setProblem(refused ? ("code" in proof ? "This code was used, or is too old. Run “procession open” again." : "The service does not know this token.") : words(error));
    }
    setBusy(false);
  };
  useEffect(() => {
    // An address with a code that is put into a tab which shows this already changes the fragment alone.
    const hear = (): void => {
      const code = codeOf();
      if (code !== null) void enter({ code });
    };
    window.addEventListener("hashchange", hear);
    return () => window.removeEventListener("hashchange", hear);
  }, []);
  useEffect(() => {
    if (CODE !== null && !used) {
      used = true;
      void enter({ code: CODE });
    } else if (session.value === undefined) {
      whoAmI().then(() => { if (session.value) leave(); }, (error: unknown) => setProblem(words(error)));
    } else if (session.value && !over.value) leave();
  }, [session.value]);

  return (
    <main class={alone ? "body" : ""}>
      <form class="dialog signin" onSubmit={(event) => { event.preventDefault(); if (text.trim() !== "") void enter({ token: text.trim() }); }}>
        <div class="inside">
          {alone ? <h1><Logo size={20} />{location.host}</h1> : <h2><Logo size={20} />{location.host}</h2>}
          {!alone && <p class="tint-red">Your access has ended. Sign in again, and you are where you were.</p>}
          <p class="muted">On the machine, as the user of the service:</p>
          <div class="inline"><code class="mono grow box">procession open</code><Button icon="copy" label="Copy the command" onClick={() => void copy("procession open", "the command")} /></div>
          <Field id="token" label="Or a token" error={problem || undefined}>
            <Input id="token" type="password" autocomplete="current-password" placeholder="from procession token create" value={text} bad={problem !== ""} onInput={(event) => setText(event.currentTarget.value)} />
          </Field>
          <div class="inline">
            <label class="muted grow small inline"><input type="checkbox" checked={stay} onChange={() => setStay(!stay)} />Stay signed in on this browser</label>
            <button class="btn go" type="submit" disabled={busy || text.trim() === ""}>{busy ? "…" : "Sign in"}</button>
          </div>
        </div>
      </form>
      <span class="spoken" role="status">{problem}</span>
    </main>
  );
}
