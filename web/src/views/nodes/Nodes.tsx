// The nodes of the cluster: which are there, how full each is, drained and given up.

import { useState } from "preact/hooks";
import { get, send, skew, words } from "../../api/client.ts";
import type { Node } from "../../api/model.ts";
import { Broken, Button, Dialog, Loading, Meter, now, say } from "../../parts/parts.tsx";
import { StateShape } from "../../parts/State.tsx";
import { link } from "../../router.ts";
import { count, duration } from "../../state/format.ts";
import { isHub, may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { labels, sentence, standing } from "./nodes.ts";

export function Nodes() {
  return isHub() === false ? <div class="card empty"><h2>One machine</h2><p class="muted">This service is no hub of a cluster: it runs all of its jobs itself. <code class="mono">procession serve --cluster local</code> starts a hub.</p></div> : <List />;
}

function List() {
  // A link that breaks is no event.
  const list = useResource((stop) => get<{ nodes: Node[] }>("/nodes", {}, stop), ["nodes"], ["events"], 2000);
  const [forgetting, setForgetting] = useState<Node | null>(null);
  const drain = async (node: Node): Promise<void> => {
    try {
      await send(node.draining ? "DELETE" : "POST", `${path(node)}/drain`);
      say(node.draining ? `${node.name} is given jobs again` : `${node.name} is given no new jobs`);
    } catch (error) {
      say(words(error), true);
    }
    list.reload();
  };
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading />;
  const { nodes } = list.data;
  return (
    <div class="stack">
      {nodes.length === 0 ? (
        <div class="card empty"><h2>No node has joined</h2><p class="muted">Jobs wait until one does. On another machine, with a token of the scope runner:</p><code class="mono box">procession serve --join {location.origin} --join-token-file FILE --node-name NAME</code></div>
      ) : (
        <>
          <p class="muted">{sentence(nodes)}</p>
          <div class="card table">
            <table class="queues">
              <thead><tr><th>Node</th><th class="w-result">State</th><th class="w-bar">Slots</th><th class="w-dur num mid">Jobs</th><th class="w-dur wide">For</th><th class="w-by num">{may("admin") ? <span class="spoken">Actions</span> : ""}</th></tr></thead>
              <tbody>{nodes.map((node) => <Row key={node.name} node={node} onDrain={() => void drain(node)} onForget={() => setForgetting(node)} />)}</tbody>
            </table>
          </div>
        </>
      )}
      {forgetting && <ForgetDialog node={forgetting} onClose={() => { setForgetting(null); list.reload(); }} />}
    </div>
  );
}

function path(node: Node): string {
  return `/nodes/${encodeURIComponent(node.name)}`;
}

function Row({ node, onDrain, onForget }: { node: Node; onDrain: () => void; onForget: () => void }) {
  const clock = now.value + skew.value;
  const { shape, word, means } = standing(node);
  const lost = node.lost_at === null ? null : Math.ceil((Date.parse(node.lost_at) - clock) / 1000);
  return (
    <tr>
      <td>
        <span class="first"><bdi class="name">{node.name}</bdi>{node.hub && <span class="label">this service</span>}</span>
        <span class="cmd">{[node.version ?? "not heard yet", ...labels(node)].join(" ")}</span>
      </td>
      <td>
        <span class={`state ${shape}`}><StateShape state={shape} /><span class="word">{word}</span></span>
        {node.jobs > 0 && lost !== null ? <span class="two small tint-pink">{lost > 0 ? `jobs lost in ${duration(lost)}` : "jobs are lost"}</span> : means !== "" && <span class="two small faint">{means}</span>}
      </td>
      <td><span class="two">{count(node.weight)}<span class="faint"> of {count(node.slots)}</span></span><Meter part={node.slots === 0 ? 0 : node.weight / node.slots} class={node.accepting ? "" : "grey"} /></td>
      <td class="mid num"><a class="plain" title={`All jobs of ${node.name}`} href={link("jobs", { node: node.name })}>{count(node.jobs)}</a></td>
      <td class="wide muted">{duration(Math.max(0, Math.floor((clock - Date.parse(node.since)) / 1000)))}</td>
      <td class="num">
        {may("admin") && (
          <span class="acts">
            <Button small icon={node.draining ? "play" : "pause"} label={node.draining ? `Give ${node.name} jobs again` : `Drain ${node.name}`} onClick={onDrain} />
            {node.state === "unreachable" && !node.hub && <Button small icon="trash" kind="stop" label={`Give ${node.name} up`} onClick={onForget} />}
          </span>
        )}
      </td>
    </tr>
  );
}

function ForgetDialog({ node, onClose }: { node: Node; onClose: () => void }) {
  const [problem, setProblem] = useState("");
  const forget = async (): Promise<void> => {
    try {
      await send("DELETE", path(node));
      say(`${node.name} is given up`);
      onClose();
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog title={<span>Give <bdi>{node.name}</bdi> up?</span>} onClose={onClose}>
      <p class="muted">{node.jobs === 0 ? "It has no jobs." : `${node.jobs === 1 ? "Its job is" : `Its ${count(node.jobs)} jobs are`} lost at once, and nothing more is heard of them. What of them still runs there is not ended.`} A node of this name can join again, with another token and state directory.</p>
      {problem && <p class="tint-red" role="alert">{problem}</p>}
      <div class="buttons"><Button onClick={onClose}>Wait for it</Button><Button kind="stop" icon="trash" onClick={() => void forget()}>Give it up</Button></div>
    </Dialog>
  );
}
