// The same job by other means, to be copied.

import { useState } from "preact/hooks";
import { Button, copy, Segments } from "../../parts/parts.tsx";
import { asCurl, asJson, asProcession, type Submission } from "../../state/same.ts";

export function Same({ body }: { body: Submission }) {
  const [how, setHow] = useState<"procession" | "curl" | "json">("procession");
  // A secret is for the request alone.
  const shown = body["secret_env"] ? { ...body, secret_env: Object.fromEntries(Object.keys(body["secret_env"] as object).map((name) => [name, "…"])) } : body;
  const text = how === "json" ? asJson(shown) : how === "curl" ? asCurl(shown) : asProcession(shown);
  return (
    <div class="card">
      <header class="headed"><h2>The same by</h2><div class="grow" /><Segments label="How" value={how} options={[["procession", "procession"], ["curl", "curl"], ["json", "JSON"]]} onChange={setHow} /><Button small icon="copy" label="Copy" onClick={() => void copy(text, "it")} /></header>
      <pre class="box ruled" tabIndex={0}><bdi>{text}</bdi></pre>
    </div>
  );
}
