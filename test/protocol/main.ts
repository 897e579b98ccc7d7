/**
 * `npm run check:protocol [-- --workers 3 --steps 3 --faults 3 --redundancy shadow --max-states N] [--seeded [--only TEXT]] [--replay FOLDER]
 * [--json]`: explores the protocol with the real `decide` and `decideWorker`, or replays what they did in real runs. Exit codes: 0 no invariant is
 * broken (with --seeded: every seeded bug was found; with --replay: everything is as it was recorded), 1 else.
 */
import { parseArgs } from "node:util";
import { type Exploration, explore } from "./explore.js";
import { replayFolder, reportText } from "./replay.js";
import { runSeeded } from "./seeded.js";
import type { Bounds } from "./world.js";

const usage = `Usage: npm run check:protocol -- [options]

  --workers N           at most so many workers       (default: 3)
  --steps N             optimizer steps               (default: 3)
  --faults N            crashes, cuts, late workers   (default: 3)
  --redundancy R        none or shadow                (default: both, one after the other)
  --max-states N        stop after so many states     (default: 600000 each)
  --seeded              break the protocol in known ways and see each found
  --only TEXT           of those whose name contains it, with the events that lead there
  --replay FOLDER       give the traces of real runs, made with PADDOCK_TRACE=FOLDER, to the machines again
  --json                one JSON object per exploration, or for the replay`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      workers: { type: "string", default: "3" },
      steps: { type: "string", default: "3" },
      faults: { type: "string", default: "3" },
      redundancy: { type: "string" },
      "max-states": { type: "string", default: "600000" },
      seeded: { type: "boolean", default: false },
      only: { type: "string" },
      replay: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  if (values.replay !== undefined) return await replay(values.replay, values.json);
  if (values.seeded) return await runSeeded(values.only);
  const kinds = values.redundancy ? [values.redundancy] : ["none", "shadow"];
  let code = 0;
  for (const redundancy of kinds as Bounds["redundancy"][]) {
    const bounds = {
      workers: Number(values.workers),
      steps: Number(values.steps),
      faults: Number(values.faults),
      redundancy,
    };
    const onProgress = (states: number): void =>
      void process.stderr.write(`${redundancy}: ${states} states\n`);
    const found = explore(bounds, { maxStates: Number(values["max-states"]), onProgress });
    process.stdout.write(
      values.json ? `${JSON.stringify({ bounds, ...found })}\n` : textOf(bounds, found),
    );
    if (found.violation) code = 1;
  }
  return code;
}

async function replay(folder: string, isJson: boolean): Promise<number> {
  const report = await replayFolder(folder);
  const { rows, violations } = report;
  const brief = {
    traces: rows.map(({ name, runId, events, steps }) => ({ name, runId, events, steps })),
    violations,
  };
  process.stdout.write(isJson ? `${JSON.stringify(brief)}\n` : reportText(report));
  return violations.length === 0 ? 0 : 1;
}

function textOf({ workers, steps, faults, redundancy }: Bounds, found: Exploration): string {
  const { states, transitions, depth, finished, seconds, isComplete, violation } = found;
  const lines = [
    `bounds       ${workers} workers, ${steps} steps, ${faults} faults, redundancy ${redundancy}`,
    `states       ${states}${isComplete ? ", all there are" : ", the first that were reached"}; ${transitions} transitions, depth ${depth}, ${finished} ends of runs`,
    `time         ${seconds.toFixed(0)} s`,
    violation
      ? `BROKEN       ${violation.what}\n${violation.trace.map((name, i) => `  ${i + 1}. ${name}`).join("\n")}`
      : "invariants   all hold",
  ];
  return `${lines.join("\n")}\n\n`;
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
