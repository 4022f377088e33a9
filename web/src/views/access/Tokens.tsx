// Tokens: made, shown once, and revoked. For admins.

import { useState } from "preact/hooks";
import { get, Problem, send, words } from "../../api/client.ts";
import type { TokenEntry, TokenScope } from "../../api/model.ts";
import { Broken, Button, copy, Dialog, Field, Input, Loading, say } from "../../parts/parts.tsx";
import { parseDuration } from "../../state/format.ts";
import { isHub } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";

export function Tokens({ at, onRevoked }: { at: (time: string) => string; onRevoked: () => void }) {
  const list = useResource((stop) => get<{ tokens: TokenEntry[] }>("/tokens", {}, stop), ["tokens"]);
  const [open, setOpen] = useState<{ kind: "new" } | { kind: "revoke"; token: TokenEntry } | null>(null);
  const close = (): void => {
    setOpen(null);
    list.reload();
    onRevoked();
  };
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading rows={3} />;
  return (
    <div class="card scroll">
      <header class="headed"><h2>Tokens</h2><span class="sub">of programs and people</span><div class="grow" /><Button small icon="plus" onClick={() => setOpen({ kind: "new" })}>Token</Button></header>
      <table>
        <thead><tr><th>Name</th><th class="w-time">May</th><th class="w-dur wide">Made</th><th class="w-dur wide">Until</th><th class="w-by num"><span class="spoken">Actions</span></th></tr></thead>
        <tbody>
          {list.data.tokens.map((token) => (
            <tr key={token.name}>
              <td><bdi>{token.name}</bdi></td><td class="muted">{token.scope}</td><td class="muted wide">{token.created_at === null ? "first start" : at(token.created_at)}</td><td class="muted wide">{token.expires_at === null ? "for ever" : at(token.expires_at)}</td>
              <td class="num"><Button small kind="stop" onClick={() => setOpen({ kind: "revoke", token })}>Revoke</Button></td>
            </tr>
          ))}
        </tbody>
      </table>
      {open?.kind === "new" && <CreateDialog onClose={close} />}
      {open?.kind === "revoke" && <RevokeDialog token={open.token} onClose={close} />}
    </div>
  );
}

const SCOPES: [TokenScope, string][] = [["metrics", "numbers about the service"], ["read", "look at jobs"], ["operate", "run and stop jobs"], ["admin", "everything"], ["runner", "join as a node"]];

function CreateDialog({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [scope, setScope] = useState<TokenScope>("operate");
  const [until, setUntil] = useState("90 d");
  const [errors, setErrors] = useState<Record<string, string>>({});
  const [made, setMade] = useState<(TokenEntry & { token: string }) | null>(null);
  const create = async (): Promise<void> => {
    const seconds = until.trim() === "" ? null : parseDuration(until);
    if (until.trim() !== "" && (seconds === null || seconds < 1)) return setErrors({ until: "a duration such as 90 d; nothing for ever" });
    try {
      const answer = await send("POST", "/tokens", { body: { name: name.trim(), scope, expires_in_seconds: seconds } });
      setMade(await answer.json());
    } catch (error) {
      const at: Record<string, string> = { "/name": "name", "/scope": "scope", "/expires_in_seconds": "until" };
      const placed = error instanceof Problem ? error.errors.map((one) => [at[one.pointer ?? ""] ?? "", one.detail] as const) : [];
      setErrors(placed.length > 0 ? Object.fromEntries(placed) : { "": words(error) });
    }
  };
  if (made) {
    return (
      <Dialog title={<span>The token <bdi>{made.name}</bdi></span>} onClose={onClose}>
        <p class="muted">It is shown now and never again. Whoever has it may {SCOPES.find(([one]) => one === made.scope)?.[1] ?? made.scope}.</p>
        <div class="inline"><code class="mono grow box" aria-label="Token">{made.token}</code><Button icon="copy" label="Copy the token" onClick={() => void copy(made.token, "the token")} /></div>
        <div class="buttons"><Button kind="go" onClick={onClose}>Done</Button></div>
      </Dialog>
    );
  }
  return (
    <Dialog title="A token" onClose={onClose}>
      <form class="stack" noValidate onSubmit={(event) => { event.preventDefault(); void create(); }}>
        <Field id="token-name" label="Name" hint="lower-case letters, digits and -_." error={errors["name"]}><Input id="token-name" value={name} bad={"name" in errors} placeholder="ci" onInput={(event) => { setName(event.currentTarget.value); setErrors({}); }} /></Field>
        <div class="grid2">
          <Field id="token-scope" label="May" error={errors["scope"]}><select id="token-scope" class="input" value={scope} onChange={(event) => setScope(event.currentTarget.value as TokenScope)}>{SCOPES.filter(([one]) => one !== "runner" || isHub()).map(([one, word]) => <option key={one} value={one}>{one}: {word}</option>)}</select></Field>
          <Field id="token-until" label="For" hint="nothing: for ever" error={errors["until"]}><Input id="token-until" value={until} bad={"until" in errors} onInput={(event) => { setUntil(event.currentTarget.value); setErrors({}); }} /></Field>
        </div>
        {errors[""] && <p class="tint-red small" role="alert">{errors[""]}</p>}
        <div class="buttons"><Button onClick={onClose}>Cancel</Button><Button kind="go" type="submit" disabled={name.trim() === ""}>Make it</Button></div>
      </form>
    </Dialog>
  );
}

function RevokeDialog({ token, onClose }: { token: TokenEntry; onClose: () => void }) {
  const [problem, setProblem] = useState("");
  const revoke = async (): Promise<void> => {
    try {
      await send("DELETE", `/tokens/${encodeURIComponent(token.name)}`);
      say(`${token.name} is revoked`);
      onClose();
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog title={<span>Revoke <bdi>{token.name}</bdi>?</span>} onClose={onClose}>
      <p class="muted">Whoever has it may do nothing any more; sessions of browsers that came from it end.{token.name === "default" && " A new token takes its place in the file “token” of the state directory."}</p>
      {problem && <p class="tint-red" role="alert">{problem}</p>}
      <div class="buttons"><Button onClick={onClose}>Leave it</Button><Button kind="stop" icon="trash" onClick={() => void revoke()}>Revoke</Button></div>
    </Dialog>
  );
}
