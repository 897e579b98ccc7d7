/**
 * How soon a lost worker is noticed and how soon the run goes on. A fleet of three processes with a coordinator of its own; times are from the
 * signal to the coordinator's log ("worker gone") and to the ledger's records, which are made when it acts. Before the next generation begins, all
 * who are left come to rest.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LedgerRecord, RunSpecInput } from "@paddock/contract";
import { type Fleet, type Member, startFleet } from "../support/fleet.js";
import { readSteps, scratch, until, writeTinyRun } from "../support/paddock.js";
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";

const leaseSeconds = 3;
/** So many steps between two losses, to know how long one takes. */
const stepsBetween = 6;

export const recoveryBench: Bench = {
  name: "recovery",
  summary:
    "workers killed and stopped: time to notice, time to the next commit (--pairs: how many of each; cases shadow, none)",
  run: recovery,
};

interface Loss {
  /** Seconds from the signal to the coordinator's log of the loss. */
  readonly noticed: number;
  /** Seconds from the signal to the record of the next generation. */
  readonly replanned: number;
  /** Seconds from the signal to the next commit. */
  readonly committed: number;
  /** Median seconds of the steps before. */
  readonly step: number;
  /** Commits that were taken back. */
  readonly voided: number;
}

async function recovery(context: BenchContext): Promise<void> {
  const folder = scratch();
  try {
    for (const redundancy of ["shadow", "none"] as const) {
      if (!isAsked(context, redundancy)) continue;
      for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
        const losses = await measure(folder.path, { redundancy, signal, count: context.pairs });
        print(lineOf(`${redundancy}, ${signal}`, losses));
        context.say(JSON.stringify({ redundancy, signal, losses }));
      }
    }
  } finally {
    folder.remove();
  }
}

async function measure(
  directory: string,
  o: {
    readonly redundancy: "none" | "shadow";
    readonly signal: "SIGKILL" | "SIGSTOP";
    readonly count: number;
  },
): Promise<Loss[]> {
  const changes: Partial<RunSpecInput> = {
    steps: 100_000,
    // Steps of a second or more with three workers on two cores: what processes cost beside them is small.
    batchPerRank: 16,
    model: { width: 192, depth: 4, heads: 3, patchSize: 7, channels: 1, dropPathRate: 0.1 },
    fleet: { workers: 3, leaseSeconds, redundancy: o.redundancy },
    checkpoint: { everySteps: 4 },
  };
  const name = `${o.redundancy}-${o.signal}`;
  const spec = writeTinyRun(directory, changes);
  const fleet = await startFleet({ directory, name, spec });
  fleet.startCoordinator();
  const members = [0, 1, 2].map((i) => fleet.startWorker(`w${i}`));
  const losses: Loss[] = [];
  try {
    for (let i = 0; i < o.count; i++) {
      await settled(fleet);
      const victim = members.shift() as Member;
      losses.push(await lose(fleet, victim, o.signal));
      victim.kill("SIGKILL");
      members.push(fleet.startWorker(`w${i + 3}`));
    }
  } finally {
    await fleet.stop();
  }
  return losses;
}

/** Three workers, and some steps of theirs. */
async function settled(fleet: Fleet): Promise<void> {
  await until("three workers at work", 120, () => {
    const last = readSteps(fleet.runDir).slice(-stepsBetween);
    const generations = new Set(last.map(({ generation }) => generation));
    return last.length === stepsBetween && generations.size === 1 && last.at(-1)?.workers === 3;
  });
}

async function lose(fleet: Fleet, victim: Member, signal: "SIGKILL" | "SIGSTOP"): Promise<Loss> {
  const before = fleet.ledger();
  const times = commitsOf(before).slice(-stepsBetween);
  const steps = times.slice(1).map(({ unixMs }, i) => unixMs - (times[i]?.unixMs ?? 0));
  const at = Date.now();
  victim.kill(signal);
  const after = (): LedgerRecord[] => fleet.ledger().slice(before.length);
  const next = (): LedgerRecord | undefined => after().find(({ kind }) => kind === "generation");
  await until("another generation and a commit of it", 120, () => {
    const generation = next();
    return (
      generation !== undefined &&
      commitsOf(after()).some(({ unixMs }) => unixMs > generation.unixMs)
    );
  });
  const generation = next() as LedgerRecord & { kind: "generation" };
  const commits = commitsOf(after());
  const first = commits.find(({ unixMs }) => unixMs > generation.unixMs);
  const reached = commitsOf(fleet.ledger().filter(({ unixMs }) => unixMs < generation.unixMs)).at(
    -1,
  );
  return {
    noticed: (goneAt(fleet, victim) - at) / 1000,
    replanned: (generation.unixMs - at) / 1000,
    committed: ((first?.unixMs ?? 0) - at) / 1000,
    step: median(steps) / 1000,
    voided: (reached?.step ?? -1) + 1 - generation.step,
  };
}

/** When the coordinator logged that a worker is gone, in Unix milliseconds. */
function goneAt({ runDir }: Fleet, { name }: Member): number {
  const lines = readFileSync(join(runDir, "logs", "coordinator.log"), "utf8").split("\n");
  const line = lines.findLast(
    (text) => text.includes('"worker gone"') && text.includes(`"worker":"${name}"`),
  );
  if (!line) throw new Error(`the coordinator has not logged that ${name} is gone`);
  return Date.parse((JSON.parse(line) as { time: string }).time);
}

type Commit = Extract<LedgerRecord, { kind: "commit" }>;

function commitsOf(records: readonly LedgerRecord[]): Commit[] {
  return records.filter((record): record is Commit => record.kind === "commit");
}

function lineOf(name: string, losses: readonly Loss[]): string {
  const of = (pick: (loss: Loss) => number, share: number): string =>
    quantile(losses.map(pick), share).toFixed(2);
  const noticed = `${of((l) => l.noticed, 0.5)} / ${of((l) => l.noticed, 0.99)} s`;
  const replanned = `${of((l) => l.replanned, 0.5)} / ${of((l) => l.replanned, 0.99)} s`;
  const after = ({ committed, noticed: n, step }: Loss): number => (committed - n) / step;
  const steps = `${of(after, 0.5)} / ${of(after, 0.99)} steps`;
  const step = `${of((l) => l.step, 0.5)} s`;
  const voided = of((l) => l.voided, 0.5);
  return `${name.padEnd(16)} ${losses.length} losses, lease ${leaseSeconds} s, step ${step}: noticed after ${noticed} (p50 / p99), next generation after ${replanned}, the first commit ${steps} later, ${voided} commits taken back (p50)`;
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
