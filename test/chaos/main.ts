/**
 * `npm run chaos -- [--faults 200] [--seed 7] [--workers 3] [--matrix [--repeat 3] [--only TEXT]] [--schedules 20] [--json] [--keep]`: real fleets under
 * faults. Whatever is killed, frozen, cut off, added or removed, the final state must be that of the undisturbed run to the last bit, and the
 * committed steps must have used the same samples.
 *
 *   --faults N     N random faults, in runs of about 20 each; --from K: begin with the K-th run of that seed
 *   --matrix       every failpoint with every action; --only TEXT: those whose "point action" contains it; --sample N: every N-th of them
 *   --schedules N  undisturbed runs with 2, 3, 5, 7 and 8 workers (--counts), and N random schedules of joins, leaves and kills
 *   --steps N      of each run (default: 300 of the matrix, 200 of random faults, 100 of schedules); --redundancy shadow|none: what lost shards come back from (default shadow)
 *   --trace DIR    every process writes a trace there, for npm run check:protocol -- --replay DIR
 *
 * Exit codes: 0 the promise held, 1 it did not (folders and how to see it again are printed), 2 wrong use.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { env } from "node:process";
import { parseArgs } from "node:util";
import type { FaultyRun } from "./faulty-run.js";
import { type MatrixCell, runMatrix } from "./matrix.js";
import { type Outcome, runUndisturbed } from "./outcome.js";
import { allPointFaults } from "./points.js";
import { throwRandomFaults } from "./random-faults.js";
import { matrixTable, recordHead, recordLine, runLine, summaryTable } from "./report.js";
import { compareWorkerCounts, runSchedule, undisturbedWorkers } from "./schedules.js";
import { type ChaosRun, engineName } from "./spec.js";

const { values } = parseArgs({
  options: {
    faults: { type: "string", default: "0" },
    from: { type: "string", default: "0" },
    seed: { type: "string", default: "7" },
    workers: { type: "string", default: "3" },
    steps: { type: "string" },
    redundancy: { type: "string", default: "shadow" },
    matrix: { type: "boolean", default: false },
    repeat: { type: "string", default: "1" },
    only: { type: "string", default: "" },
    sample: { type: "string", default: "1" },
    schedules: { type: "string" },
    counts: { type: "string", default: undisturbedWorkers.join(",") },
    json: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    trace: { type: "string" },
    threads: { type: "string" },
  },
});

const cadence = { checkpointSteps: 4, evaluationSteps: 10 };

/** What of everything that was run did not hold. */
const broken: string[] = [];
const results: Record<string, unknown> = {};

async function main(): Promise<number> {
  const { matrix, schedules } = values;
  const faults = count(values.faults, "--faults");
  if (faults === 0 && !matrix && schedules === undefined) {
    process.stderr.write(
      "chaos: expected --faults N, --matrix or --schedules N, received none of them; for example: npm run chaos -- --faults 200 --seed 7\n",
    );
    return 2;
  }
  // The fleets' processes have this one's environment.
  if (values.trace) Object.assign(env, { PADDOCK_TRACE: resolve(values.trace) });
  const root = mkdtempSync(join(tmpdir(), "paddock-chaos-"));
  const seed = count(values.seed, "--seed");
  if (faults > 0) await randomFaults(join(root, "faults"), faults, seed);
  if (matrix) await wholeMatrix(join(root, "matrix"), seed);
  if (schedules !== undefined) {
    await allSchedules(join(root, "schedules"), count(schedules, "--schedules"), seed);
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ ...results, broken })}\n`);
  say(broken.length === 0 ? "the promise held" : `${broken.length} broken:\n${broken.join("\n")}`);
  if (broken.length === 0 && !values.keep) rmSync(root, { recursive: true, force: true });
  else say(`folders: ${root}`);
  return broken.length === 0 ? 0 : 1;
}

async function randomFaults(folder: string, faults: number, seed: number): Promise<void> {
  const run = runOf(200);
  const undisturbed = await reference(folder, run);
  say(recordHead);
  const runs = await throwRandomFaults({
    folder,
    run,
    undisturbed,
    faults,
    seed,
    from: count(values.from, "--from"),
    keep: values.keep,
    onRecord: (record, number) => say(`${recordLine(record)}  (run ${number})`),
    onRun: (ended, number) => {
      say(`run ${number}: ${runLine(ended)}`);
      note(
        ended,
        `--faults ${ended.records.length} --seed ${seed} --from ${number} --workers ${run.workers} --steps ${run.steps}`,
      );
    },
  });
  const records = runs.flatMap((ended) => ended.records);
  results["faults"] = { undisturbed: undisturbed.hash, runs: runs.map(brief) };
  print(summaryTable(records));
  print(
    `${records.filter(({ hasActed }) => hasActed).length} faults in ${runs.length} runs; state ${undisturbed.hash.slice(0, 16)} and ${undisturbed.samples.length} samples in every one: ${runs.every((ended) => ended.broken === undefined) ? "yes" : "NO"}`,
  );
}

async function wholeMatrix(folder: string, seed: number): Promise<void> {
  const run = runOf(300);
  const undisturbed = await reference(folder, run);
  const every = count(values.sample, "--sample");
  const faults = allPointFaults()
    .filter(({ point, action }) => `${point} ${action}`.includes(values.only))
    .filter((_, i) => i % every === 0);
  const repeats: MatrixCell[][] = [];
  for (let repeat = 0; repeat < count(values.repeat, "--repeat"); repeat++) {
    const cells = await runMatrix({
      folder: join(folder, `repeat-${repeat}`),
      run,
      undisturbed,
      faults,
      seed: seed + repeat,
      keep: values.keep,
      onRecord: (record) => say(recordLine(record)),
      onRun: (ended, left) => {
        say(`${runLine(ended)}; ${left} faults left`);
        const [first] = ended.records.filter(({ result }) => result === "stuck");
        note(ended, `--matrix --seed ${seed + repeat} --only "${first?.name ?? ""}"`);
      },
    });
    repeats.push(cells);
    for (const { point, action, broken: why } of cells) {
      const isItsOwn = why?.includes("did not act") || why?.includes("computed again");
      if (isItsOwn) broken.push(`${point} ${action}: ${why}`);
    }
  }
  results["matrix"] = repeats.map((cells) => ({
    faults: cells.length,
    broken: cells.filter((cell) => cell.broken !== undefined),
  }));
  print(`${machine()}; ${run.workers} workers, redundancy ${run.redundancy}, seed ${seed}`);
  print(
    "Each cell: whether state and samples at the end were those of the undisturbed run, and the most seconds from the fault to the next commit.",
  );
  print(matrixTable(repeats));
  const cells = repeats.flat();
  const held = cells.filter((cell) => cell.broken === undefined).length;
  print(`${held} of ${cells.length} faults left the final state as it is without them`);
}

async function allSchedules(folder: string, schedules: number, seed: number): Promise<void> {
  const { workers: _, ...run } = runOf(100);
  const undisturbed = await runUndisturbed(join(folder, "undisturbed"), run, 1);
  say(`undisturbed, 1 worker: state ${undisturbed.hash.slice(0, 16)}`);
  const options = { folder, run, undisturbed, seed, keep: values.keep };
  const counts = values.counts.split(",").filter(Boolean).map(Number);
  const rows: string[] = [];
  await compareWorkerCounts(options, counts, (workers, outcome, why) => {
    const row = `| ${workers} workers | ${outcome.hash.slice(0, 16)} | ${why ?? "equal"} |`;
    rows.push(row);
    say(row);
    if (why !== undefined) broken.push(`${workers} workers: ${why}`);
  });
  for (let number = 0; number < schedules; number++) {
    const ended = await runSchedule(options, number);
    const kinds = ended.records.map(({ name, step }) => `${name}@${step}`).join(" ");
    const state = ended.outcome?.hash.slice(0, 16) ?? "none";
    const row = `| schedule ${number}: ${kinds} | ${state} | ${ended.broken ?? "equal"} |`;
    rows.push(row);
    say(`${row} ${runLine(ended)}`);
    note(ended, `--schedules ${number + 1} --seed ${seed} --counts ""`);
  }
  results["schedules"] = { undisturbed: undisturbed.hash, rows };
  print(["| run | state | against 1 worker |", "|---|---|---|", ...rows].join("\n"));
}

async function reference(folder: string, run: ChaosRun): Promise<Outcome> {
  mkdirSync(folder, { recursive: true });
  const outcome = await runUndisturbed(join(folder, "undisturbed"), run, 1);
  say(
    `undisturbed, 1 worker: state ${outcome.hash.slice(0, 16)}, ${outcome.samples.length} samples, ${outcome.seconds.toFixed(0)} s`,
  );
  return outcome;
}

function note(ended: FaultyRun, again: string): void {
  if (ended.broken === undefined) return;
  broken.push(
    `${ended.broken}\n  again: npm run chaos -- ${again} --keep\n  folder: ${ended.folder}`,
  );
}

function brief({ records, outcome, broken: why }: FaultyRun) {
  const { samples, ...rest } = outcome ?? { samples: [] };
  return { records, ...rest, samples: samples.length, broken: why ?? null };
}

function machine(): string {
  const commit = spawnSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" });
  const where = `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, Node ${process.version}`;
  return `${where}, engine ${engineName()}, commit ${commit.stdout?.trim() || "unknown"}`;
}

function runOf(steps: number): ChaosRun {
  const workers = count(values.workers, "--workers");
  const { redundancy } = values;
  if (redundancy !== "shadow" && redundancy !== "none") {
    return refuse(`--redundancy: expected shadow or none, received "${redundancy}"`);
  }
  const wanted = values.steps ? count(values.steps, "--steps") : steps;
  return { ...cadence, redundancy, workers, steps: wanted };
}

function count(text: string, flag: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  return refuse(`${flag}: expected a whole number, received "${text}"`);
}

function refuse(why: string): never {
  process.stderr.write(`chaos: ${why}\n`);
  process.exit(2);
}

/** For people who watch. */
function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Results. */
function print(text: string): void {
  if (!values.json) process.stdout.write(`${text}\n\n`);
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${String((error as Error).stack ?? error)}\n`);
    process.exitCode = 1;
  },
);
