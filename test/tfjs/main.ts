/**
 * TF.js's own op tests on the `torch` backend: `npm run test:tfjs [-- --filter TEXT] [--json]`. Every failure must be named, with its
 * reason, in expected-failures.json. Exit codes: 0 as expected, 1 a test fails that is not listed or a listed one passes, 3 no torch.
 */
import { Console } from "node:console";
import { parseArgs } from "node:util";
import { type Comparison, compareWithExpected, readExpected } from "./expected.js";
import { runSuite, type SpecOutcome } from "./suite.js";

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      filter: { type: "string" },
      json: { type: "boolean", default: false },
      threads: { type: "string", default: "1" },
    },
  });
  // Some tests print, and so does jasmine: not into our results.
  globalThis.console = new Console(process.stderr, process.stderr);
  const { version, outcomes } = await runSuite(Number(values.threads), values.filter);
  const comparison = compareWithExpected(outcomes, readExpected());
  const report = values.json ? asJson : asText;
  process.stdout.write(`${report(version, outcomes, comparison)}\n`);
  return comparison.unexpected.length + comparison.passedAfterAll.length > 0 ? 1 : 0;
}

function countOf(outcomes: readonly SpecOutcome[], status: SpecOutcome["status"]): number {
  return outcomes.filter((outcome) => outcome.status === status).length;
}

function asJson(version: string, outcomes: readonly SpecOutcome[], c: Comparison): string {
  return JSON.stringify({
    version,
    passed: countOf(outcomes, "passed"),
    failed: countOf(outcomes, "failed"),
    pending: countOf(outcomes, "pending"),
    expected: c.expected,
    unexpected: c.unexpected,
    passedAfterAll: c.passedAfterAll,
  });
}

function asText(version: string, outcomes: readonly SpecOutcome[], c: Comparison): string {
  const counts = (["passed", "failed", "pending"] as const).map(
    (status) => `${countOf(outcomes, status)} ${status}`,
  );
  const lines = [`TF.js's op tests on torch (${version}): ${counts.join(", ")}`];
  for (const { reason, count } of c.expected) {
    lines.push(`${String(count).padStart(5)} expected: ${reason}`);
  }
  for (const { name, messages } of c.unexpected) {
    lines.push(`FAILED, not listed: ${name}`, ...messages.map((message) => `    ${message}`));
  }
  for (const name of c.passedAfterAll) lines.push(`PASSED, but listed as failing: ${name}`);
  return lines.join("\n");
}

main().then(
  // Tests leave timers behind that would keep the process for a while.
  (code) => process.stdout.write("", () => process.exit(code)),
  (error: unknown) => {
    const unavailable = (error as { code?: unknown }).code === "engine-unavailable";
    process.stderr.write(`${(unavailable ? undefined : (error as Error).stack) ?? error}\n`);
    process.exit(unavailable ? 3 : 1);
  },
);
