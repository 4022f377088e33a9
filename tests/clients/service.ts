/** Where the service is, as tests/clients/run.sh says. */
export function service(): { base: string; token: string } {
  const [base, token] = process.argv.slice(2);
  if (!base || !token) throw new Error("usage: BASE TOKEN");
  return { base, token };
}

export function check(holds: boolean, what: unknown): void {
  if (!holds) throw new Error(JSON.stringify(what));
}
