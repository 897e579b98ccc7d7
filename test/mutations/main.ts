/**
 * `npm run mutate [-- --only NAME] [--json]`: breaks the recipe on purpose, one place after the other, and checks that the golden files notice.
 * Works on a copy of the sources in a temporary folder. Exit codes: 0 every mutation was noticed, 1 some were not.
 */
import { parseArgs } from "node:util";
import { mutations } from "./mutations.js";
import { makeSandbox, type Verdict } from "./sandbox.js";

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { only: { type: "string" }, json: { type: "boolean", default: false } },
  });
  const chosen = mutations.filter(({ name }) => !values.only || name.includes(values.only));
  const sandbox = await makeSandbox();
  let missed = 0;
  try {
    const clean = await sandbox.run(null);
    if (clean.failed.length > 0) {
      throw new Error(`the golden files fail without a mutation: ${clean.failed.join(", ")}`);
    }
    for (const mutation of chosen) {
      const verdict = await sandbox.run(mutation);
      if (verdict.failed.length === 0) missed++;
      process.stdout.write(values.json ? `${JSON.stringify(verdict)}\n` : textOf(verdict));
    }
  } finally {
    await sandbox.close();
  }
  const summary = `${chosen.length - missed} of ${chosen.length} mutations noticed\n`;
  process.stdout.write(values.json ? "" : summary);
  return missed === 0 ? 0 : 1;
}

function textOf({ name, failed, files }: Verdict): string {
  const noticed = failed.length > 0 ? `noticed by ${failed.length} of ${files} files` : "MISSED";
  const examples = failed.slice(0, 3).join(", ");
  return `${name}: ${noticed}${examples ? ` (${examples}${failed.length > 3 ? ", ..." : ""})` : ""}\n`;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
    process.exitCode = 1;
  },
);
