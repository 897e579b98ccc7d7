/** What all parts of a step share, and the order in which units are visited. */
import {
  frozenSpecOf,
  type RunSpec,
  resolutionAt,
  type StepScalars,
  sizeOfModel,
} from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { UnitTensors } from "../tensors.js";
import type { VitConfig } from "../vit/config.js";
import type { CropGroup } from "../vit/embed.js";
import type { DrawRope } from "../vit/rope.js";
import type { ChooseSequences, DrawUniforms } from "../vit/stochastic-depth.js";
import type { Observation, RankBatch, Side, StepDeps } from "./contract.js";

export interface StepContext {
  readonly spec: RunSpec;
  /** From 0. */
  readonly step: number;
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
  /** Shows what lies between inputs and losses. */
  readonly observe?: (what: Observation, rank: number, tensor: tf.Tensor) => void;
  /** Each rank's global crops cut into patches, from the teacher's pass to the student's backward: images are uploaded once. */
  readonly globalPatches: tf.Tensor2D[];
  /** Absent at steps that are not looked at. */
  readonly watch: Watch | undefined;
}

/** What has been launched for the local ranks and is read at the end of the step, when a device has come to it anyway. */
export interface Watch {
  /** [n,D] teacher features (cls after the final norm) of the first n <= 64 global crops. */
  readonly features: tf.Tensor2D[];
  /** [2]: mean entropy of outputs, entropy of the mean output. */
  readonly outputs: tf.Tensor1D[];
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

/**
 * The units of a step in the order of their visits: forward of the teacher that makes the targets, of a frozen gram teacher, of the student
 * with heads, backbone backward.
 */
export function visitsOf(spec: RunSpec): Visit[] {
  const own = backboneUnits(spec);
  const forward = [...own, ...headUnits(spec)];
  const target: Visit[] = spec.distillation
    ? [...backboneUnits(frozenSpecOf(spec)), ...headUnits(spec)].map((unit) => ({
        side: "frozen",
        unit,
      }))
    : forward.map((unit) => ({ side: "teacher", unit }));
  const gram: Visit[] =
    spec.loss.gram?.teacher === "frozen" ? own.map((unit) => ({ side: "frozen", unit })) : [];
  const student: Visit[] = [...forward, ...own.toReversed()].map((unit) => ({
    side: "student",
    unit,
  }));
  return [...target, ...gram, ...student];
}

function backboneUnits(spec: RunSpec): string[] {
  const { depth } = sizeOfModel(spec.model);
  return ["embed", ...Array.from({ length: depth }, (_, i) => `block.${i}`), "norm"];
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
export function cropGroups(
  { spec, step }: Pick<StepContext, "spec" | "step">,
  batch: RankBatch,
  masked: boolean,
): CropGroup[] {
  const { crops, batchPerRank } = spec;
  const sizes = resolutionAt(spec, step);
  const global = {
    pixels: batch.globalCrops,
    count: 2 * batchPerRank,
    height: sizes.global,
    width: sizes.global,
    ...(masked ? { maskRows: batch.maskRows } : {}),
  };
  if (!batch.localCrops || crops.localCount === 0) return [global];
  const count = crops.localCount * batchPerRank;
  return [global, { pixels: batch.localCrops, count, height: sizes.local, width: sizes.local }];
}

/** Local crops of a rank, all images together. */
export function localRows(spec: Pick<RunSpec, "crops" | "batchPerRank">): number {
  return spec.crops.localCount * spec.batchPerRank;
}

/** Masked patches of a rank that take part: none if iBOT is off. */
export function maskedRows(spec: RunSpec, batch: RankBatch): Int32Array {
  return spec.loss.ibot > 0 ? batch.maskRows : new Int32Array(0);
}

/** Shows one tensor of each local rank that has one. */
export function observeRanks(
  { observe, batches }: StepContext,
  what: Observation,
  tensors: readonly (tf.Tensor | undefined)[],
): void {
  if (!observe) return;
  for (const [r, tensor] of tensors.entries()) {
    if (tensor) observe(what, (batches[r] as RankBatch).rank, tensor);
  }
}
