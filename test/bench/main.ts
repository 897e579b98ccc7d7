/** The benches' command line: `npm run bench -- <name> [--json] [--threads N] [--pairs N] [--device cpu|cuda]
 * [--precision fp32|bf16|fp16] [--batch N] [--case NAME]... [--profile] [--python FILE] [--before DIR]`. */
import { availableParallelism, cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { checkpointBench } from "./checkpoint.js";
import { collectivesBench } from "./collectives.js";
import { corruptionBench } from "./corruption.js";
import { dataBench } from "./data.js";
import { dispatchBench } from "./dispatch.js";
import { enginesBench } from "./engines.js";
import { exchangeBench } from "./exchange.js";
import { type Bench, Unavailable } from "./harness/bench.js";
import { tableHead, tableLine } from "./harness/rows.js";
import { precisionBench } from "./precision.js";
import { recoveryBench } from "./recovery.js";
import { redundancyBench } from "./redundancy.js";
import { stepBench } from "./step.js";

const benches: readonly Bench[] = [
  stepBench,
  dispatchBench,
  enginesBench,
  exchangeBench,
  collectivesBench,
  dataBench,
  precisionBench,
  checkpointBench,
  corruptionBench,
  recoveryBench,
  redundancyBench,
];

/** Pairs below which a median says little. */
const defaultPairs = 7;

const usage = `Usage: npm run bench -- <name> [options]

  --pairs N          measurements of each side, in turns (default: ${defaultPairs})
  --case NAME        of a bench that has cases; may be given again
  --before DIR       another built checkout of Paddock to compare with
  --python FILE      where the peers' packages are
  --threads N        of one op, on both sides (default: 1)
  --device NAME      cpu or cuda
  --precision NAME   fp32, bf16 or fp16
  --batch N          images of a step
  --profile, --json

Exit codes: 0 measured, 2 wrong use, 3 something it needs is not on this machine. For example:
  npm run bench -- redundancy --case shadow-none --pairs 11
`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: "boolean", default: false },
      threads: { type: "string", default: "1" },
      pairs: { type: "string", default: String(defaultPairs) },
      device: { type: "string", default: "cpu" },
      precision: { type: "string", default: "fp32" },
      batch: { type: "string", default: "8" },
      case: { type: "string", multiple: true, default: [] },
      profile: { type: "boolean", default: false },
      python: { type: "string" },
      before: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const [name] = positionals;
  if (name === undefined || values.help) {
    if (values.help) print(usage);
    for (const bench of benches) print(`${bench.name.padEnd(11)} ${bench.summary}`);
    return 0;
  }
  const bench = benches.find((candidate) => candidate.name === name);
  const [threads, pairs] = [Number(values.threads), Number(values.pairs)];
  const [batch, { precision }] = [Number(values.batch), values];
  if (
    !bench ||
    !isCount(threads) ||
    !isCount(pairs) ||
    !isCount(batch) ||
    (precision !== "fp32" && precision !== "bf16" && precision !== "fp16")
  ) {
    const expected = `expected one of ${benches.map((b) => b.name).join(", ")}, counts of at least 1, and --precision fp32, bf16 or fp16`;
    process.stderr.write(`${expected}; received ${process.argv.slice(2).join(" ")}\n`);
    return 2;
  }
  if (!values.json) {
    print(
      `${name}: ${machine()}, ${threads} thread(s) a side, ${values.device}, ${precision}, batch ${batch}, load ${loadavg()[0]?.toFixed(1)}`,
    );
    print(tableHead);
  }
  await bench.run({
    threads,
    pairs,
    device: values.device,
    precision,
    batch,
    cases: values.case,
    profile: values.profile,
    python: values.python,
    before: values.before,
    row: (row) => print(values.json ? JSON.stringify(row) : tableLine(row)),
    say: (text) => process.stderr.write(`${text}\n`),
  });
  return 0;
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value > 0;
}

function machine(): string {
  return `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, Node ${process.version}`;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const known = error instanceof Unavailable;
    process.stderr.write(`${known ? error.message : String((error as Error).stack ?? error)}\n`);
    process.exitCode = known ? 3 : 1;
  },
);
