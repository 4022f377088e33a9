// Runs the unit tests: TypeScript goes through esbuild, then Node's own runner takes it.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const files = readdirSync(join(here, "unit")).filter((name) => name.endsWith(".test.ts"));
const out = mkdtempSync(join(here, "..", "node_modules", ".unit-"));
try {
  await build({ entryPoints: files.map((name) => join(here, "unit", name)), outdir: out, outExtension: { ".js": ".mjs" }, bundle: true, format: "esm", platform: "node", packages: "external", sourcemap: "inline", logLevel: "warning" });
  const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", out], { stdio: "inherit" });
  process.exitCode = status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
