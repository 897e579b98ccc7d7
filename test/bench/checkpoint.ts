/**
 * Checkpoints of 1 GB of state in two workers: save against as many raw write+fsync streams and against PyTorch's DCP; verified load,
 * with a cold page cache, against a raw cold read and DCP; what an asynchronous save costs the training, against DCP's async_save; and the
 * memory that it takes. Sides take turns in the same run. `--case small`: 64 MB, to see that it works.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { exampleState, manifestOf } from "./harness/checkpoints.js";
import { pythonWithTorch } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, openOurs, openPeer, type Side } from "./harness/sides.js";

const units = 16;
const stepCount = 4;
/** Of one step's computation, which takes some hundred ms. */
const rounds = 150;

type Ask = (command: object) => Promise<Answer>;

export const checkpointBench: Bench = {
  name: "checkpoint",
  summary:
    "1 GB of checkpoint from two workers: save, verified load, stall and memory, against raw I/O and DCP",
  async run(context) {
    const python = pythonWithTorch(context.python);
    const total = context.cases.includes("small") ? 64e6 : 1e9;
    const elements = Math.round(total / 16 / units);
    // Beside the sources, not in /tmp, which may be in memory.
    const folder = mkdtempSync(join(process.cwd(), ".bench-checkpoint-"));
    const sides: Side[] = [];
    try {
      for (const worker of ["0", "1"]) {
        sides.push(
          openOurs("checkpoint-side.js", [worker, String(units), String(elements), folder]),
        );
      }
      for (const rank of ["0", "1"]) {
        sides.push(openPeer(python, "checkpoint.py", [rank, String(total / 2), folder]));
      }
      await compare(context, { folder, elements, total }, sides);
    } finally {
      await Promise.all(sides.map((side) => side.close()));
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

interface Job {
  readonly folder: string;
  readonly elements: number;
  readonly total: number;
}

async function compare(context: BenchContext, job: Job, sides: readonly Side[]): Promise<void> {
  const both =
    (pair: readonly Side[]): Ask =>
    async (command) =>
      slowest(await Promise.all(pair.map((side) => side.ask(command))));
  const [ours, dcp] = [both(sides.slice(0, 2)), both(sides.slice(2))];
  await Promise.all([ours({ do: "setup" }), dcp({ do: "setup" })]);
  const run = { context, job, ours, dcp };
  const isAskedHere = (name: string): boolean =>
    isAsked({ ...context, cases: context.cases.filter((known) => known !== "small") }, name);
  if (isAskedHere("save")) await saves(run);
  if (isAskedHere("load")) await loads(run);
  if (isAskedHere("stall")) await stalls(run);
}

interface Run {
  readonly context: BenchContext;
  readonly job: Job;
  readonly ours: Ask;
  readonly dcp: Ask;
}

/** A measurement is over when the slower side is done. */
function slowest(answers: readonly Answer[]): Answer {
  const names = Object.keys(answers[0] ?? {});
  return Object.fromEntries(
    names.map((name) => [name, Math.max(...answers.map((answer) => answer[name] ?? 0))]),
  );
}

/** Each way once in every round, in an order that turns; the first two rounds do not count. */
async function inTurns<Way extends string>(
  pairs: number,
  ways: Readonly<Record<Way, () => Promise<Answer>>>,
): Promise<Record<Way, Answer[]>> {
  const names = Object.keys(ways) as Way[];
  const answers = Object.fromEntries(names.map((way) => [way, []])) as unknown as Record<
    Way,
    Answer[]
  >;
  for (let round = -2; round < pairs; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const way = names[(turn + round + 2) % names.length] as Way;
      const answer = await ways[way]();
      if (round >= 0) answers[way].push(answer);
    }
  }
  return answers;
}

const ms = (answers: readonly Answer[]): number[] => answers.map((answer) => answer["ms"] ?? 0);

async function saves({ context, job, ours, dcp }: Run): Promise<void> {
  const rate = (answers: readonly Answer[]) => ms(answers).map((time) => job.total / 1e6 / time);
  const first = [await ours({ do: "save", step: 1 }), await dcp({ do: "save" })];
  const answers = await inTurns(context.pairs, {
    ours: () => ours({ do: "save", step: 1 }),
    raw: () => ours({ do: "raw" }),
    direct: () => ours({ do: "raw", direct: true }),
    dcp: () => dcp({ do: "save" }),
  });
  const row = (against: string, peer: readonly Answer[]): void =>
    context.row(
      rowOf(
        { bench: "checkpoint", case: `save, against ${against}`, unit: "GB/s" },
        rate(answers.ours),
        rate(peer),
      ),
    );
  row("raw write+fsync", answers.raw);
  row("raw O_DIRECT write+fsync", answers.direct);
  row("DCP save", answers.dcp);
  const [mine, theirs] = first.map((answer) => [answer["extraMiB"] ?? 0]);
  context.row(
    rowOf(
      { bench: "checkpoint", case: "first save, extra memory of a worker", unit: "MiB" },
      mine ?? [],
      theirs,
    ),
  );
}

async function loads({ context, job, ours, dcp }: Run): Promise<void> {
  await ours({ do: "save", step: 2 });
  await ours({ do: "raw", direct: true });
  await dcp({ do: "save" });
  writeManifest(job, 2);
  const rate = (answers: readonly Answer[]) => ms(answers).map((time) => job.total / 1e6 / time);
  const step = { step: 2 };
  const cold = (ask: Ask, command: object) => async (): Promise<Answer> => {
    forget(join(job.folder, "2"));
    forget(job.folder);
    await dcp({ do: "forget" });
    return await ask(command);
  };
  const answers = await inTurns(context.pairs, {
    ours: cold(ours, { do: "load", ...step }),
    raw: cold(ours, { do: "read", ...step }),
    dcp: cold(dcp, { do: "load" }),
  });
  const { wrong } = await ours({ do: "check" });
  if (wrong !== -1) throw new Error("expected the loaded values to be those that were saved");
  for (const [against, peer] of [
    ["a raw cold read", answers.raw],
    ["DCP load", answers.dcp],
  ] as const) {
    const name = {
      bench: "checkpoint",
      case: `verified cold load, against ${against}`,
      unit: "GB/s",
    };
    context.row(rowOf(name, rate(answers.ours), rate(peer)));
  }
  const extra = (of: readonly Answer[]) => of.map((answer) => answer["extraMiB"] ?? 0);
  const name = { bench: "checkpoint", case: "load, extra memory of a worker", unit: "MiB" };
  context.row(rowOf(name, extra(answers.ours), extra(answers.dcp)));
}

/**
 * Drops a folder's files from the page cache: posix_fadvise(DONTNEED), as dd does it. Not in the sides' processes: after a fork, each page that
 * they write to is faulted in anew.
 */
function forget(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(folder, entry.name);
    const { status, stderr } = spawnSync("dd", [`if=${path}`, "iflag=nocache", "count=0"]);
    if (status !== 0) throw new Error(`dd could not drop ${path} from the page cache: ${stderr}`);
  }
}

async function stalls({ context, ours, dcp }: Run): Promise<void> {
  const command = { do: "steps", steps: stepCount, rounds, step: 3 };
  const answers = await inTurns(context.pairs, {
    ours: () => ours({ ...command, save: true }),
    oursAlone: () => ours({ ...command, save: false }),
    dcp: () => dcp({ ...command, save: true }),
    dcpAlone: () => dcp({ ...command, save: false }),
  });
  const blocked = (of: readonly Answer[]) => of.map((answer) => answer["blockedMs"] ?? 0);
  const stall = { bench: "checkpoint", case: "async save, training blocked", unit: "ms" };
  context.row(rowOf(stall, blocked(answers.ours), blocked(answers.dcp)));
  const slower = (saving: readonly Answer[], alone: readonly Answer[]): number[] =>
    ms(saving).map((time, i) => time - (ms(alone)[i] ?? 0));
  const name = `async save, ${stepCount} steps beside it take longer by`;
  context.row(
    rowOf(
      { bench: "checkpoint", case: name, unit: "ms" },
      slower(answers.ours, answers.oursAlone),
      slower(answers.dcp, answers.dcpAlone),
    ),
  );
}

function writeManifest({ folder, elements }: Job, step: number): void {
  const files = [0, 1].map((worker) =>
    JSON.parse(readFileSync(join(folder, `file-${worker}.json`), "utf8")),
  );
  const directory = join(folder, String(step));
  mkdirSync(directory, { recursive: true });
  const manifest = manifestOf(exampleState(units, elements, 2), step, files);
  writeFileSync(join(directory, "manifest.json"), JSON.stringify(manifest));
}
