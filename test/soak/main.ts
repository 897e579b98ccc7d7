/**
 * `npm run soak [-- --steps N] [--short] [--json] [--leak]`: thousands of training steps of a tiny, complete DINOv2 run on `torch`, first in one
 * process, then as a fleet. After the warm-up the number of tensors must stay the same to the last one and resident memory must
 * grow by less than 1 %. `--short` is 200 steps in one process, for tests; `--leak` keeps a tensor per step. `--oversubscribed 4 --minutes 30`:
 * instead, a fleet of three beside four busy processes per core, of whom nobody may be taken for dead. Exit codes: 0 so it is, 1 it is not, 3 no torch.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { describeEngines } from "@paddock/engine";
import { collectGarbage } from "@paddock/worker";
import { residentMiB } from "../bench/harness/usage.js";
import { writeIdxImages } from "../support/images.js";
import { tinySpec } from "../support/paddock.js";
import { trainFleet } from "./fleet.js";
import { type Oversubscribed, trainOversubscribed } from "./oversubscribed.js";
import { type Held, trainSteps } from "./steps.js";

/** A quarter of the run: V8's heap and the allocators' caches take some hundred steps to reach their size. */
const warmupShare = 0.25;
const mostGrowth = 0.01;
/** Resident memory at a point is the median over this share of the run: V8 collects garbage when it likes. */
const windowShare = 0.1;

/**
 * The short run's steps, and how far resident memory may grow in its second half. Garbage is collected before memory is looked at;
 * from -3 to +2 MiB were seen. A leak of `leakBytes` per step is 25 MiB by then; one of a quarter of that still fits what malloc has
 * left from earlier peaks, and shows in the tensors' number and bytes alone, which are exact.
 */
const short = { steps: 200, mostGrowthMiB: 8 };

interface Verdict {
  readonly what: string;
  /** At the end of the warm-up, and of the run. */
  readonly startMiB: number;
  readonly endMiB: number;
  readonly growth: number;
  readonly tensors: readonly number[];
  readonly ok: boolean;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      steps: { type: "string", default: "2000" },
      json: { type: "boolean", default: false },
      short: { type: "boolean", default: false },
      leak: { type: "boolean", default: false },
      threads: { type: "string", default: "1" },
      oversubscribed: { type: "string" },
      minutes: { type: "string", default: "30" },
    },
  });
  const torch = describeEngines().find(({ name }) => name === "torch");
  if (!torch?.available) {
    process.stderr.write(`soak needs the torch engine: ${torch?.note}\n`);
    return 3;
  }
  const steps = values.short ? short.steps : Number(values.steps);
  const folder = mkdtempSync(join(tmpdir(), "paddock-soak-"));
  try {
    if (values.oversubscribed !== undefined) return await soakOversubscribed(folder, values);
    const images = writeIdxImages(join(folder, "images"), 64, 32);
    const spec = parseRunSpec({ ...tinySpec(images), steps });
    const held: Held[] = [];
    if (values.short) {
      const verdict = await trainShort(spec, values.leak);
      print(values.json ? JSON.stringify(verdict) : line(verdict));
      return verdict.ok ? 0 : 1;
    }
    await trainSteps(spec, steps, async (now) => void held.push(now), values.leak);
    const alone = judge("steps in one process", steps, held, held);
    const fleet = judge("worker of a fleet", steps, await trainFleet(folder, steps), []);
    const verdicts = [alone, fleet];
    print(values.json ? JSON.stringify({ steps, verdicts, held: tenth(held) }) : table(held));
    if (!values.json) for (const verdict of verdicts) print(line(verdict));
    return verdicts.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function soakOversubscribed(
  folder: string,
  o: {
    readonly oversubscribed?: string | undefined;
    readonly minutes: string;
    readonly json: boolean;
  },
): Promise<number> {
  const how = { minutes: Number(o.minutes), factor: Number(o.oversubscribed) };
  const end = await trainOversubscribed(folder, how, (text) => process.stderr.write(`${text}\n`));
  print(o.json ? JSON.stringify(end) : oversubscribedLine(end));
  return end.ok ? 0 : 1;
}

async function trainShort(spec: RunSpec, leak: boolean): Promise<Verdict> {
  const held: Held[] = [];
  const samplesMiB: number[] = [];
  await trainSteps(
    spec,
    short.steps,
    async (now) => {
      held.push(now);
      if ((now.step + 1) % (short.steps / 4) !== 0) return;
      for (let i = 0; i < 3; i++) {
        collectGarbage();
        await new Promise((resolve) => setTimeout(resolve, 100)); // V8 frees arrays' memory on other threads
      }
      samplesMiB.push(residentMiB());
    },
    leak,
  );
  const [, startMiB = Number.NaN, , endMiB = Number.NaN] = samplesMiB;
  const tensors = [...new Set(held.flatMap((now) => [now.tensors, now.nativeTensors]))];
  const isSameBytes = new Set(held.map(({ nativeBytes }) => nativeBytes)).size === 1;
  const ok = tensors.length === 1 && isSameBytes && endMiB - startMiB < short.mostGrowthMiB;
  const growth = endMiB / startMiB - 1;
  return { what: "200 steps", startMiB, endMiB, growth, tensors: tensors.slice(0, 3), ok };
}

function judge(
  what: string,
  steps: number,
  samples: readonly { readonly step: number; readonly residentMiB: number }[],
  counts: readonly Held[],
): Verdict {
  const from = steps * warmupShare;
  const around = (start: number): number => {
    const inside = samples.filter(
      ({ step }) => step >= start && step < start + steps * windowShare,
    );
    const sorted = inside.map(({ residentMiB }) => residentMiB).toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  };
  const [startMiB, endMiB] = [around(from), around(steps * (1 - windowShare))];
  const growth = endMiB / startMiB - 1;
  const tensors = [...new Set(counts.flatMap((now) => [now.tensors, now.nativeTensors]))];
  const ok = growth < mostGrowth && (counts.length === 0 || tensors.length === 1);
  return { what, startMiB, endMiB, growth, tensors: tensors.slice(0, 3), ok };
}

function oversubscribedLine(end: Oversubscribed): string {
  const { minutes, burners, leaseSeconds, steps, falsePositives, rebalanced } = end;
  const gaps = `${end.medianSeconds.toFixed(2)} s a step (median), ${end.longestSeconds.toFixed(2)} s the longest`;
  return `${minutes} min beside ${burners} busy processes, lease ${leaseSeconds} s: ${steps} steps, ${gaps}, rebalanced ${rebalanced} times, ${falsePositives} false positives: ${end.ok ? "ok" : "NOT OK"}`;
}

function tenth(held: readonly Held[]): Held[] {
  return held.filter(({ step }) => (step + 1) % Math.ceil(held.length / 10) === 0);
}

function table(held: readonly Held[]): string {
  const rows = tenth(held).map((now) =>
    [now.step + 1, now.tensors, now.nativeTensors, now.nativeBytes, now.residentMiB.toFixed(1)]
      .map((cell) => String(cell).padStart(14))
      .join(""),
  );
  const head = ["steps", "tensors", "native", "native bytes", "resident MiB"];
  return [head.map((cell) => cell.padStart(14)).join(""), ...rows].join("\n");
}

function line({ what, startMiB, endMiB, growth, tensors, ok }: Verdict): string {
  const memory = `${startMiB.toFixed(1)} -> ${endMiB.toFixed(1)} MiB (${(100 * growth).toFixed(2)} %)`;
  const counted = tensors.length > 0 ? `, tensors between steps: ${tensors.join(", ")}` : "";
  return `${ok ? "ok  " : "FAIL"} ${what}: resident memory after the warm-up ${memory}${counted}`;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${String((error as Error).stack ?? error)}\n`);
    process.exitCode = 1;
  },
);
