// Builds the page into dist/, or into the folder that is named: node build.mjs [--watch] [FOLDER]
//
// What comes out depends on the sources and the locked packages alone: two builds give the same bytes.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, context } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const watch = args.includes("--watch");
const out = resolve(args.find((one) => !one.startsWith("-")) ?? join(here, "dist"));

/** The most bytes, as they go over the wire. */
const LIMITS = { first: 75_000, terminal: 95_000, all: 220_000 };
/** The most requests of the first load: the shell, its icon, and what it names. */
const REQUESTS = 6;
const LICENSES = ["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD"];

const options = {
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome123", "firefox121", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: !watch,
  legalComments: "none",
  charset: "utf8",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  metafile: true,
  logLevel: "warning",
};

function finish(meta) {
  const outputs = Object.entries(meta.outputs);
  const entry = outputs.find(([, one]) => one.entryPoint === "src/main.tsx");
  const name = (path) => path.split("/").at(-1);
  const app = name(entry[0]);
  const css = name(entry[1].cssBundle);
  // Asked for together with the script that needs them, rather than once that has been read.
  const chunks = entry[1].imports.filter((one) => one.kind === "import-statement").map((one) => name(one.path));
  // A browser asks for it again at each new address of a line, unless its name says that it stays as it is.
  const icon = readFileSync(join(here, "src/favicon.svg"));
  const favicon = `favicon-${createHash("sha256").update(icon).digest("hex").slice(0, 8)}.svg`;
  writeFileSync(join(out, favicon), icon);
  // The service fills in the base, the nonce and nothing else.
  writeFileSync(join(out, "index.html"), `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<base href="{base}">
<title>Procession</title>
<link rel="icon" href="assets/${favicon}" type="image/svg+xml">
<link rel="stylesheet" href="assets/${css}">
<style nonce="{nonce}"></style>
${chunks.map((chunk) => `<link rel="modulepreload" href="assets/${chunk}">\n`).join("")}<script type="module" src="assets/${app}"></script>
<body><div id="app"></div><noscript>This page needs JavaScript. The same is to be had by “procession” and by HTTP.</noscript></body>
</html>
`);
  writeFileSync(join(out, "LICENSES.txt"), licenses(meta));
  return { app, css, favicon, entry };
}

/** The licences of what is in the bundles. */
function licenses(meta) {
  const packages = new Set();
  for (const input of Object.keys(meta.inputs)) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) packages.add(found[1]);
  }
  const parts = ["The page has these packages in it.\n"];
  for (const one of [...packages].sort()) {
    const folder = join(here, "node_modules", one);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    if (!LICENSES.includes(license)) throw new Error(`${one} has the licence ${license}`);
    const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
    parts.push(`${"=".repeat(72)}\n${one} ${version} (${license})\n\n${file ? readFileSync(join(folder, file), "utf8").trim() : license}\n`);
  }
  return parts.join("\n");
}

/** Sizes, and what must not be in a bundle. */
function check(meta, { app, css, favicon, entry }) {
  const size = (name) => gzipSync(readFileSync(join(out, name)), { level: 9 }).length;
  const first = new Set([app, css]);
  const walk = (path) => {
    for (const one of meta.outputs[path].imports) {
      if (one.kind === "import-statement" && !first.has(one.path.split("/").at(-1))) {
        first.add(one.path.split("/").at(-1));
        walk(one.path);
      }
    }
  };
  walk(entry[0]);
  const names = readdirSync(out).filter((name) => name !== "LICENSES.txt");
  const sum = (list) => list.reduce((total, name) => total + size(name), 0);
  const requests = first.size + 2;
  if (requests > REQUESTS) throw new Error(`first load: ${requests} requests, more than ${REQUESTS}`);
  const figures = { first: sum([...first, "index.html", favicon]), terminal: sum(names.filter((name) => name.startsWith("terminal-"))), all: sum(names) };
  for (const [what, most] of Object.entries(LIMITS)) {
    if (figures[what] > most) throw new Error(`${what}: ${figures[what]} bytes compressed, more than ${most}`);
  }
  for (const name of names.filter((one) => one.endsWith(".js") && first.has(one))) {
    const text = readFileSync(join(out, name), "utf8");
    for (const word of [".innerHTML=", "insertAdjacentHTML", "document.write", "eval(", "new Function"]) {
      // Preact can set `innerHTML` where a component asks for it; ours do not, and Trusted Types refuse it.
      const found = text.split(word).length - 1 - (word === ".innerHTML=" ? (text.match(/\.innerHTML=(?:""|[$\w]+\.__html|[$\w]+)/gi)?.length ?? 0) : 0);
      if (found > 0) throw new Error(`${name} has ${word}`);
    }
  }
  console.log(`first load ${figures.first}, terminal ${figures.terminal}, all ${figures.all} bytes compressed; ${requests} requests`);
  return createHash("sha256").update(names.map((name) => readFileSync(join(out, name))).join("")).digest("hex");
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
if (watch) {
  const again = { name: "again", setup: (one) => one.onEnd((result) => { if (result.metafile) finish(result.metafile); }) };
  const running = await context({ ...options, plugins: [again] });
  await running.watch();
} else {
  const { metafile } = await build(options);
  check(metafile, finish(metafile));
}
