/** Known ways to break the protocol, each in a copy of what is compiled: the checker must find every one. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { execPath } from "node:process";
import { text as textOf } from "node:stream/consumers";
import type { Mutation } from "../mutations/mutations.js";
import { copySources, withMutation } from "../mutations/sandbox.js";
import type { Exploration } from "./explore.js";
import type { Bounds } from "./world.js";

const worker = (file: string): string => `services/worker/dist/session/${file}.js`;
const coordinator = (file: string): string => `services/coordinator/dist/run/${file}.js`;

const bugs: readonly Mutation[] = [
  {
    name: "a worker forgets that its step is prepared",
    file: worker("worker-rest"),
    find: "prepared: isPrepared, shadow",
    replace: "prepared: false, shadow",
  },
  {
    name: "a worker drops the shards of a first step that is prepared",
    file: worker("worker-rest"),
    find: "(count > 0 || isPrepared)",
    replace: "(count > 0)",
  },
  {
    name: "older shards are dropped at the assignment, not at the first decision",
    file: worker("worker-rest"),
    find: "held.generation === live?.generation && held.step === startStep",
    replace: "false",
  },
  {
    name: "a worker says hello before it has come to rest",
    file: worker("worker-rest"),
    find: 'if (connection !== "open" || running || catchingUp)',
    replace: 'if (connection !== "open")',
  },
  {
    name: "a decision that was missed is applied and not counted",
    file: worker("worker-rest"),
    find: "({ ...held, step: step + 1, prepared: false })",
    replace: "({ ...held, prepared: false })",
  },
  {
    name: "a worker does not answer ABORT when it rests",
    file: worker("worker-rest"),
    find: 'if (ending === "to-answer")',
    replace: 'if (ending === "never")',
  },
  {
    name: "holdings of any generation count",
    file: coordinator("cover"),
    find: "generation === committedBy && step === next",
    replace: "step === next",
  },
  {
    name: "the copy of the wrong shard is taken",
    file: coordinator("cover"),
    find: "held.shadow === shard",
    replace: "held.shadow === (shard + 1) % workers",
  },
  {
    name: "a live generation counts as a rollback",
    file: coordinator("durable"),
    find: "if (record.step === state.next)",
    replace: "if (record.step > state.next)",
  },
  {
    name: "the last decision is not kept",
    file: coordinator("durable"),
    find: "return norms ? { generation, step, skipped, norms } : null;",
    replace: "return null;",
  },
  {
    name: "decisions are sent before they are in the ledger",
    file: coordinator("turn"),
    find: 'turn.effects.push({ kind: "send", id, message });',
    replace: 'turn.effects.unshift({ kind: "send", id, message });',
  },
  {
    name: "a generation starts before all have come to rest",
    file: coordinator("membership"),
    find: "workers.some(({ owesHeld }) => owesHeld !== null)",
    replace: "false",
  },
  {
    name: "one prepared worker is enough for a commit",
    file: coordinator("commit"),
    find: "prepared.length < active.members.length",
    replace: "prepared.length < 1",
  },
  {
    name: "the oldest checkpoints are kept",
    file: coordinator("membership"),
    find: "durable.checkpoints.slice(-durable.spec.checkpoint.keep)",
    replace: "durable.checkpoints.slice(0, durable.spec.checkpoint.keep)",
  },
  {
    name: "a checkpoint is complete with its first file",
    file: coordinator("checkpoint"),
    find: "files.every((file) => file !== null)",
    replace: "files.some((file) => file !== null)",
  },
  {
    name: "a run finishes without its last checkpoint",
    file: coordinator("ending"),
    find: "if (active.pendingCheckpoints.length > 0 || active.pendingEvaluations.length > 0)",
    replace: "if (false)",
  },
];

/**
 * Prints a table with one row per bug.
 * @param only bugs whose name contains it, and then how each was found, event by event
 * @returns 0 if every one was found. @throws RangeError if no name contains `only`
 */
export async function runSeeded(only?: string): Promise<number> {
  const chosen = bugs.filter(({ name }) => name.includes(only ?? ""));
  if (chosen.length === 0) throw new RangeError(`--only: no seeded bug has "${only}" in its name`);
  const folder = await copySources();
  let missed = 0;
  process.stdout.write(
    "| bug | broken invariant | steps, faults, redundancy | states | events |\n|---|---|---|---|---|\n",
  );
  try {
    for (const { name, ...bug } of chosen) {
      const broken = await withMutation(folder, { name, ...bug }, () => exploreIn(folder));
      if (!broken) missed++;
      process.stdout.write(`${rowOf(name, broken)}\n`);
      if (only !== undefined) process.stdout.write(`${traceOf(broken)}\n`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  process.stdout.write(`\n${chosen.length - missed} of ${chosen.length} seeded bugs found\n`);
  return missed === 0 ? 0 : 1;
}

function rowOf(name: string, broken: Explored | undefined): string {
  if (!broken?.violation) return `| ${name} | MISSED | | | |`;
  const { states, violation, bounds } = broken;
  return `| ${name} | ${violation.what} | ${bounds.steps}, ${bounds.faults}, ${bounds.redundancy} | ${states} | ${violation.trace.length} |`;
}

function traceOf(broken: Explored | undefined): string {
  return (broken?.violation?.trace ?? []).map((name, i) => `  ${i + 1}. ${name}`).join("\n");
}

/** As `--json` prints it. */
type Explored = Exploration & { readonly bounds: Bounds };

/**
 * The unbroken machines are explored to the end within each; the next only if those before it have shown nothing. Three steps make two checkpoints;
 * two faults, a generation that ends before its first decision and then loses a worker.
 */
const allBounds: readonly Bounds[] = [
  { workers: 2, steps: 3, faults: 1, redundancy: "none" },
  { workers: 2, steps: 3, faults: 1, redundancy: "shadow" },
  { workers: 2, steps: 2, faults: 2, redundancy: "none" },
  { workers: 2, steps: 2, faults: 2, redundancy: "shadow" },
];

/** The first exploration that finds something. */
async function exploreIn(folder: string): Promise<Explored | undefined> {
  for (const bounds of allBounds) {
    const explored = await exploreOne(folder, bounds);
    if (explored.violation) return explored;
  }
  return undefined;
}

/** @throws if the exploration ended without a result */
async function exploreOne(folder: string, bounds: Bounds): Promise<Explored> {
  const flags = Object.entries({ ...bounds, "max-states": 3_000_000 });
  const args = flags.flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(execPath, ["test/dist/protocol/main.js", ...args, "--json"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "close");
  const [text, errors] = await Promise.all([textOf(child.stdout), textOf(child.stderr)]);
  const [code, signal] = await ended;
  if (text === "") {
    throw new Error(`an exploration ended with ${code ?? signal} before its result: ${errors}`);
  }
  return JSON.parse(text) as Explored;
}
