/**
 * The engine against PyTorch: a ViT-S/16 block, twelve of them, and a whole DINOv2 training step (2 x 224 + 8 x 96 crops, 8
 * images, 65,536 prototypes, softmax centring, KoLeo, iBOT, AdamW, EMA). The whole step starts from the same parameters and
 * inputs on both sides, and its first losses must agree: the sides do the same work.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { pythonWithTorch } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, alternate, openOurs, openPeer, pick, type Side } from "./harness/sides.js";

interface Case {
  readonly name: string;
  /** The peer's case to compare with; it never recomputes. */
  readonly peer: string;
  /** What one measurement does, and how much of it: throughput is in these. A step does one image per image of the batch. */
  readonly unit: string;
  readonly amount?: number;
}

const cases: readonly Case[] = [
  { name: "block", peer: "block", unit: "blocks/s", amount: 1 },
  { name: "blocks", peer: "blocks", unit: "blocks/s", amount: 12 },
  { name: "blocks-recompute", peer: "blocks", unit: "blocks/s", amount: 12 },
  { name: "step", peer: "step", unit: "images/s" },
  { name: "step-recompute", peer: "step", unit: "images/s" },
];

/** Fewer page faults than this are none: their ratio would say nothing. */
const leastFaults = 1000;

/** Largest relative difference of the sides' first losses: noise of sums in another order; of bfloat16's 8 bits. */
const firstTolerance = { fp32: 1e-3, bf16: 1e-2, fp16: 1e-2 };
/**
 * The same after two updates, in which the loss falls by 2.6e-2. Adam's first updates turn on the signs of gradients near 0: the peer alone
 * differs from itself by 1.5e-3 with another number of threads.
 */
const laterTolerance = { fp32: 5e-3, bf16: 1e-2, fp16: 1e-2 };

const stateMiB = (parameters: number): number => (16 * parameters) / 2 ** 20;

export const stepBench: Bench = {
  name: "step",
  summary:
    "ViT-S/16 block and whole DINOv2 step on the torch engine against PyTorch: time, CPU time, memory",
  async run(context) {
    const python = pythonWithTorch(context.python);
    for (const one of cases.filter(({ name }) => isAsked(context, name))) {
      await compare(context, python, one);
    }
  },
};

async function compare(context: BenchContext, python: string, one: Case): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
  const { device, precision, batch } = context;
  const amount = one.amount ?? batch;
  const options = JSON.stringify({ threads: context.threads, device, precision, batch });
  const sides: Side[] = [];
  try {
    const ours = openOurs("step-side.js", [one.name, options, folder]);
    sides.push(ours);
    const { baselineMiB: ourBaseline = 0 } = await ours.ask({ do: "setup" });
    const peer = openPeer(python, "step.py", [one.peer, options, folder]);
    sides.push(peer);
    const { baselineMiB: peerBaseline = 0, parameters = 0 } = await peer.ask({ do: "setup" });
    const run = { do: "run" };
    checkLosses(await ours.ask(run), await peer.ask(run), firstTolerance[precision]);
    const answers = await alternate(ours, peer, run, { pairs: context.pairs, warmup: 1 });
    checkLosses(answers.ours[0], answers.peer[0], laterTolerance[precision]);
    const print = (what: string, unit: string, of: (answer: Answer, isOurs: boolean) => number) =>
      context.row(
        rowOf(
          { bench: "step", case: `${one.name}${what}`, unit },
          pick(answers.ours, (answer) => of(answer, true)),
          pick(answers.peer, (answer) => of(answer, false)),
        ),
      );
    const over = (answer: Answer, isOurs: boolean): number =>
      (answer["peakMiB"] ?? 0) - (isOurs ? ourBaseline : peerBaseline);
    print("", one.unit, ({ ms = 0 }) => (amount * 1000) / ms);
    print(", by CPU time", one.unit, ({ cpuMs = 0 }) => (amount * 1000) / cpuMs);
    if (device !== "cpu") {
      // What tensors took of the GPU at most.
      print(", peak device memory", "MiB", ({ deviceMiB = 0 }) => deviceMiB);
      if (context.profile) await profile(context, one, ours, peer);
      return;
    }
    print(", page faults", "thousands", ({ faults = 0 }) => Math.max(faults, leastFaults) / 1000);
    print(", peak memory over libraries", "MiB", over);
    if (one.peer === "step") {
      print(", the same without 16 B/parameter", "MiB", (answer, isOurs) => {
        return over(answer, isOurs) - stateMiB(parameters);
      });
    }
    if (context.profile) await profile(context, one, ours, peer);
  } finally {
    await Promise.all(sides.map((side) => side.close()));
    rmSync(folder, { recursive: true, force: true });
  }
}

function checkLosses(ours: Answer | undefined, peer: Answer | undefined, tolerance: number): void {
  const [mine, theirs] = [ours?.["loss"], peer?.["loss"]];
  if (mine === undefined || theirs === undefined) return;
  const difference = Math.abs(mine - theirs) / Math.abs(theirs);
  if (difference < tolerance) return;
  throw new Error(
    `the sides do not compute the same step: loss ${mine} here, ${theirs} there, expected within ${tolerance} relative`,
  );
}

/** The dearest kernels of either side, in ms of one more run. */
async function profile(context: BenchContext, one: Case, ours: Side, peer: Side): Promise<void> {
  for (const [name, side] of [
    ["ours", ours],
    ["peer", peer],
  ] as const) {
    const times = Object.entries(await side.ask({ do: "profile" }));
    context.say(`${one.name}, ${name}, ms by kernel:`);
    for (const [kernel, ms] of times.slice(0, 24)) {
      context.say(`  ${ms.toFixed(1).padStart(9)}  ${kernel}`);
    }
  }
}
