/** What all parts of a step share, and the order in which units are visited. */
import type { RunSpec, StepScalars } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { UnitTensors } from "../tensors.js";
import type { VitConfig } from "../vit/config.js";
import type { CropGroup } from "../vit/embed.js";
import type { DrawRope } from "../vit/rope.js";
import type { ChooseSequences, DrawUniforms } from "../vit/stochastic-depth.js";
import type { RankBatch, Side, StepDeps } from "./contract.js";

export interface StepContext {
  readonly spec: RunSpec;
  readonly config: VitConfig;
  readonly scalars: StepScalars;
  /** Factor on all losses and therefore gradients; losses are reported without it. */
  readonly lossScale: number;
  readonly batches: readonly RankBatch[];
  readonly deps: StepDeps;
  readonly chooseSequences: ChooseSequences;
  readonly drawUniforms: DrawUniforms;
  readonly drawRope: DrawRope;
  readonly walk: Walk;
  readonly held: Held;
  /** Each rank's global crops cut into patches, from the teacher's pass to the student's backward: images are uploaded once. */
  readonly globalPatches: tf.Tensor2D[];
}

/** Runs `use` with a unit's parameters gathered, the next unit being prefetched meanwhile. */
export type Walk = (
  side: Side,
  unit: string,
  use: (tensors: UnitTensors) => Promise<void> | void,
) => Promise<void>;

interface Visit {
  readonly side: Side;
  readonly unit: string;
}

/** The units of a step in the order of their visits: teacher forward, student forward with heads, backbone backward. */
export function visitsOf(spec: RunSpec, depth: number): Visit[] {
  const blocks = Array.from({ length: depth }, (_, i) => `block.${i}`);
  const forward = ["embed", ...blocks, "norm", ...headUnits(spec)];
  const backward = ["norm", ...blocks.toReversed(), "embed"];
  return [
    ...forward.map((unit) => ({ side: "teacher" as const, unit })),
    ...[...forward, ...backward].map((unit) => ({ side: "student" as const, unit })),
  ];
}

/** The heads that this spec trains with, in order. */
function headUnits(spec: RunSpec): ("dino_head" | "ibot_head")[] {
  return hasOwnIbotHead(spec) ? ["dino_head", "ibot_head"] : ["dino_head"];
}

/** Whether masked patches go through a head of their own (and are used at all). */
export function hasOwnIbotHead(spec: RunSpec): boolean {
  return spec.loss.ibot > 0 && spec.heads.ibot !== null;
}

/** Visits must come in the order of `visits`: never are more than two units gathered, one in use and one prefetched. */
export function walkUnits(deps: StepDeps, visits: readonly Visit[]): Walk {
  let position = 0;
  return async (side, unit, use) => {
    const due = visits[position++];
    if (due?.side !== side || due.unit !== unit) {
      throw new RangeError(
        `visit ${position}: expected ${due?.side} ${due?.unit}, got ${side} ${unit}`,
      );
    }
    const gathered = await deps.gather(side, unit);
    try {
      const next = visits[position];
      if (next) deps.prefetch(next.side, next.unit);
      await use(gathered.tensors);
    } finally {
      gathered.release();
    }
  };
}

/** Tensors that outlive an await, so that a step which fails in between frees them. */
export interface Held {
  hold<T extends object>(tensors: T): T;
  /** Disposes whatever is left. */
  disposeAll(): void;
}

export function makeHeld(): Held {
  const containers: object[] = [];
  return {
    hold(tensors) {
      containers.push(tensors);
      return tensors;
    },
    disposeAll() {
      containers.forEach(disposeDeep);
    },
  };
}

/** Unlike `tf.dispose`, does not walk through the elements of typed arrays. */
function disposeDeep(value: unknown): void {
  if (value instanceof tf.Tensor) value.dispose();
  else if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) {
    Object.values(value).forEach(disposeDeep);
  }
}

/** The crops of a rank as groups: global crops, then local crops if there are any. */
export function cropGroups(spec: RunSpec, batch: RankBatch, masked: boolean): CropGroup[] {
  const { crops, batchPerRank } = spec;
  const global = {
    pixels: batch.globalCrops,
    count: 2 * batchPerRank,
    height: crops.global.size,
    width: crops.global.size,
    ...(masked ? { maskRows: batch.maskRows } : {}),
  };
  if (!batch.localCrops || crops.localCount === 0) return [global];
  const { size } = crops.local;
  const count = crops.localCount * batchPerRank;
  return [global, { pixels: batch.localCrops, count, height: size, width: size }];
}

/** Local crops of a rank, all images together. */
export function localRows(spec: RunSpec): number {
  return spec.crops.localCount * spec.batchPerRank;
}

/** Masked patches of a rank that take part: none if iBOT is off. */
export function maskedRows(spec: RunSpec, batch: RankBatch): Int32Array {
  return spec.loss.ibot > 0 ? batch.maskRows : new Int32Array(0);
}
