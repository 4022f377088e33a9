// Who one is, and which sessions there are.

import { get, send, words } from "../api/client.ts";
import { type SessionEntry } from "../api/model.ts";
import { session } from "../api/session.ts";
import { Broken, Button, Loading, now, say } from "../parts/parts.tsx";
import { actor, moment } from "../state/format.ts";
import { may, signOut } from "../state/me.ts";
import { useResource } from "../state/resource.ts";
import { settings } from "../state/settings.ts";
import { Tokens } from "./access/Tokens.tsx";

const MAY: Record<string, string> = { metrics: "see numbers about the service", read: "look at jobs", operate: "look at jobs, run and stop them", admin: "do everything" };
const BY: Record<string, string> = { session: "by a session of this browser", token: "by a token", socket: "over the unix socket", none: "without asking: the service runs with --auth none" };

export function Access() {
  const list = useResource((stop) => get<{ sessions: SessionEntry[] }>("/sessions", {}, stop), ["sessions"]);
  const me = session.value;
  const at = (time: string): string => moment(time, now.value, settings.value.times);
  const end = async (id: string): Promise<void> => {
    try {
      await send("DELETE", `/sessions/${id}`);
      list.reload();
    } catch (error) {
      say(words(error), true);
    }
  };
  return (
    <div class="stack">
      {me && (
        <div class="card">
          <header><h2>You</h2><div class="grow" />{me.by === "session" && <Button small icon="out" onClick={() => void signOut()}>Log out</Button>}</header>
          <dl class="facts wide3">
            <dt>Name</dt><dd><bdi>{me.actor}</bdi></dd>
            <dt>May</dt><dd>{MAY[me.scope]} <span class="faint">({me.scope})</span></dd>
            <dt>Came in</dt><dd>{BY[me.by]}</dd>
            {me.expires_at && <><dt>Until</dt><dd>{at(me.expires_at)}, or twelve hours without use</dd></>}
          </dl>
        </div>
      )}
      {list.error && !list.data ? <Broken error={list.error} again={list.reload} /> : !list.data ? <Loading rows={3} /> : (
        <div class="card scroll">
          <header class="headed"><h2>Sessions</h2><span class="sub">of browsers</span></header>
          <table>
            <thead><tr><th>Browser</th><th class="w-dur wide">Of</th><th class="w-time">May</th><th class="w-dur wide">Since</th><th class="w-dur wide">Last used</th><th class="w-by num"><span class="spoken">Actions</span></th></tr></thead>
            <tbody>
              {list.data.sessions.map((one) => (
                <tr key={one.id}><td><bdi>{one.browser}</bdi>{one.current && <span class="faint"> · this one</span>}</td><td class="muted wide"><bdi>{actor(one.actor)}</bdi></td><td class="muted">{one.scope}</td><td class="muted wide">{at(one.created_at)}</td><td class="muted wide">{at(one.used_at)}</td><td class="num"><Button small kind="stop" onClick={() => void (one.current ? signOut() : end(one.id))}>{one.current ? "Log out" : "End"}</Button></td></tr>
              ))}
              {list.data.sessions.length === 0 && <tr><td colSpan={6} class="muted">None.</td></tr>}
            </tbody>
          </table>
        </div>
      )}
      {may("admin") && me?.by !== "none" ? <Tokens at={at} onRevoked={list.reload} /> : <p class="muted small">Tokens are made and revoked by an admin, here or on the machine: <code class="mono">procession token create --name NAME --scope operate</code>.</p>}
    </div>
  );
}
