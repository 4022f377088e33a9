// A certificate authority of a test, a certificate from it, and a browser's home that trusts it.

import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** Makes all of them in a directory. `names`: what the certificate is for, as `IP:127.0.0.1` or `DNS:localhost`. */
export async function makeAuthority(dir, names) {
  const at = (name) => join(dir, name);
  await run("openssl", ["req", "-x509", ...KEY, "-keyout", at("ca.key"), "-out", at("ca.pem"), "-days", "2", "-subj", "/CN=Authority of a test", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]);
  await run("openssl", ["req", ...KEY, "-keyout", at("key.pem"), "-out", at("request.pem"), "-subj", "/CN=service of a test"]);
  await writeFile(at("extensions"), `subjectAltName=${names.join(",")}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n`);
  await run("openssl", ["x509", "-req", "-in", at("request.pem"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial", "-out", at("cert.pem"), "-days", "2", "-extfile", at("extensions")]);
  // Chromium takes authorities from here; which of the two depends on its version.
  const home = at("home");
  for (const place of [".pki/nssdb", ".local/share/pki/nssdb"]) {
    const db = join(home, place);
    await mkdir(db, { recursive: true });
    await run("certutil", ["-d", `sql:${db}`, "-N", "--empty-password"]);
    await run("certutil", ["-d", `sql:${db}`, "-A", "-n", "test", "-t", "C,,", "-i", at("ca.pem")]);
  }
  return { cert: at("cert.pem"), key: at("key.pem"), home };
}
