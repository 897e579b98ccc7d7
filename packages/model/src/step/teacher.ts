/** Teacher forward: global crops only, evaluation mode, no masks; then its scores become targets. */
import * as tf from "@tensorflow/tfjs-core";
import { headOf, headScores } from "../head/head.js";
import {
  applyPending,
  type Centers,
  centredSoftmax,
  launchMeans,
  readMeans,
} from "../loss/centering.js";
import { sinkhorn } from "../loss/sinkhorn.js";
import { parameterOf, type UnitTensors } from "../tensors.js";
import { blockForward, blockOf, disposeBlock, dropNothing } from "../vit/block.js";
import { type CropGroup, embed, patchGrid, patchify, sequencesOf } from "../vit/embed.js";
import { clsRows, disposeOutput, output, patchRows } from "../vit/output.js";
import { disposeRotation, rotationOf } from "../vit/rope.js";
import { cropGroups, hasOwnIbotHead, maskedRows, type StepContext } from "./context.js";

/** Teacher scores of one local rank. */
interface RankScores {
  /** [2B,K] in the order of the global crops. */
  cls?: tf.Tensor2D;
  /** [masked,K]; absent for a rank without masked patches, or without iBOT. */
  patches?: tf.Tensor2D;
}

export interface TeacherScores {
  readonly ranks: readonly RankScores[];
  /** Upper bounds of the scores: the largest magnitude of a prototype. Only Sinkhorn needs them. */
  readonly bounds: { dino: number; ibot: number };
}

/** Targets of one local rank: rows are probabilities over prototypes. */
export interface RankTargets {
  /** [2B,K] in the order of the global crops. */
  readonly cls: tf.Tensor2D;
  /** [masked,K] */
  readonly patches: tf.Tensor2D | undefined;
}

export async function teacherForward(ctx: StepContext): Promise<TeacherScores> {
  const { spec, config, batches, walk, held } = ctx;
  const groups = batches.map((batch) => cropGroups(spec, batch, false).slice(0, 1));
  const sequences = groups.map((ofRank) => sequencesOf(config, ofRank));
  const rows: tf.Tensor2D[] = held.hold([]);
  // One for all ranks: a constant, their crops being of one size.
  const grids = (groups[0] ?? []).map((group) => patchGrid(config, group));
  const { rotation } = held.hold({ rotation: rotationOf(config, grids) });
  await walk("teacher", "embed", (tensors) => {
    for (const [global] of groups as [CropGroup][]) {
      const patches = patchify(config, global);
      ctx.globalPatches.push(patches);
      rows.push(tf.tidy(() => embed(config, tensors, [{ ...global, patches }]).x));
    }
  });
  for (let i = 0; i < config.depth; i++) {
    await walk("teacher", `block.${i}`, (tensors) => {
      const block = blockOf(config, tensors, `backbone.blocks.${i}`);
      replaceEach(rows, (x, r) => {
        const { y, saved } = blockForward(block, x, sequences[r] ?? [], dropNothing, rotation);
        disposeBlock(saved);
        return y;
      });
    });
  }
  await walk("teacher", "norm", (tensors) => {
    replaceEach(rows, (x, r) => {
      const packed = sequences[r] ?? [];
      const masked = maskedRows(spec, batches[r] as StepContext["batches"][number]);
      const { h, saved } = output(config, tensors, x, [
        { kind: "cls", rows: clsRows(packed, 0) },
        { kind: "patch", rows: patchRows(packed, config.registers, masked) },
      ]);
      disposeOutput(saved);
      return h;
    });
  });
  disposeRotation(rotation);
  return teacherHeads(ctx, rows);
}

/** Scores of the selected rows [2B + masked, D] of each rank, which it disposes. */
async function teacherHeads(
  ctx: StepContext,
  rows: readonly tf.Tensor2D[],
): Promise<TeacherScores> {
  const { spec, walk, held } = ctx;
  const clsCount = 2 * spec.batchPerRank;
  const ranks: RankScores[] = held.hold(rows.map(() => ({})));
  const bounds = { dino: 0, ibot: 0 };
  const ownHead = hasOwnIbotHead(spec);
  const bounded = spec.loss.centering === "sinkhorn"; // reading them waits for a device
  await walk("teacher", "dino_head", async (tensors) => {
    const head = headOf(tensors, "dino_head");
    if (bounded) bounds.dino = bounds.ibot = await scoreBound(tensors, "dino_head");
    for (const [r, h] of rows.entries()) {
      const part = ownHead ? tf.slice(h, 0, clsCount) : tf.clone(h);
      const scores = headScores(head, part);
      part.dispose();
      Object.assign(ranks[r] as RankScores, splitRows(scores, clsCount));
    }
  });
  if (ownHead) {
    await walk("teacher", "ibot_head", async (tensors) => {
      const head = headOf(tensors, "ibot_head");
      if (bounded) bounds.ibot = await scoreBound(tensors, "ibot_head");
      for (const [r, h] of rows.entries()) {
        if (h.shape[0] === clsCount) continue;
        const part = tf.slice(h, clsCount);
        (ranks[r] as RankScores).patches = headScores(head, part);
        part.dispose();
      }
    });
  }
  tf.dispose(rows as tf.Tensor2D[]);
  return { ranks, bounds };
}

/**
 * Targets of each local rank, and what reads the centres to adopt: late, so that a device does not stand still for it. All
 * workers call it at one point of their step. Takes ownership of the scores.
 */
export async function targetsOf(
  ctx: StepContext,
  { ranks, bounds }: TeacherScores,
  centers: Centers,
): Promise<{
  readonly targets: readonly RankTargets[];
  readonly centers: () => Promise<Centers>;
}> {
  const { spec } = ctx;
  const cls = ranks.map((rank) => rank.cls as tf.Tensor2D);
  const patches = ranks.map((rank) => rank.patches);
  const outcome =
    spec.loss.centering === "sinkhorn"
      ? { ...(await sinkhornTargets(ctx, cls, patches, bounds)), centers: async () => centers }
      : centredTargets(ctx, cls, patches, centers);
  return {
    targets: ctx.held.hold(
      outcome.cls.map((target, r) => ({ cls: target, patches: outcome.patches[r] })),
    ),
    centers: outcome.centers,
  };
}

interface Targets {
  readonly cls: readonly tf.Tensor2D[];
  readonly patches: readonly (tf.Tensor2D | undefined)[];
}

async function sinkhornTargets(
  ctx: StepContext,
  cls: tf.Tensor2D[],
  patches: (tf.Tensor2D | undefined)[],
  bounds: TeacherScores["bounds"],
): Promise<Targets> {
  const { spec, scalars, deps } = ctx;
  const { heads, loss } = spec;
  const losses = [{ scores: cls, prototypes: heads.dino.prototypes, bound: bounds.dino }];
  const { prototypes } = heads.ibot ?? heads.dino;
  // A rank without masked patches joins with zeros: every worker must make the same calls.
  const ibot = { scores: patches, prototypes, bound: bounds.ibot };
  const [dinoTargets, ibotTargets] = await sinkhorn(
    loss.ibot > 0 ? [...losses, ibot] : losses,
    { temperature: scalars.teacherTemperature, iterations: loss.sinkhornIterations },
    (key, perRank) => deps.sumAcrossRanks(key, perRank),
  );
  return { cls: dinoTargets as tf.Tensor2D[], patches: ibotTargets ?? [] };
}

function centredTargets(
  ctx: StepContext,
  cls: readonly tf.Tensor2D[],
  patches: readonly (tf.Tensor2D | undefined)[],
  before: Centers,
): Targets & { readonly centers: () => Promise<Centers> } {
  const { spec, scalars, deps } = ctx;
  const used = applyPending(before, spec.loss.centerMomentum);
  const soften = (scores: tf.Tensor2D, center: Float32Array | null): tf.Tensor2D =>
    centredSoftmax(scores, center ?? new Float32Array(scores.shape[1]), scalars.teacherTemperature);
  const targets = ctx.held.hold({
    cls: cls.map((scores) => soften(scores, used.dino)),
    patches: patches.map((scores) => scores && soften(scores, used.ibot)),
  });
  const withIbot = spec.loss.ibot > 0;
  const sizes = {
    dino: spec.heads.dino.prototypes,
    ibot: withIbot ? (spec.heads.ibot ?? spec.heads.dino).prototypes : 0,
    logicalRanks: spec.logicalRanks,
  };
  const launched = ctx.held.hold(launchMeans(cls, withIbot ? patches : []));
  tf.dispose([...cls, ...patches.filter((scores) => scores !== undefined)]);
  return {
    ...targets,
    async centers() {
      const means = await readMeans(launched, sizes, (key, perRank) =>
        deps.sumAcrossRanks(key, perRank),
      );
      return { ...used, pendingDino: means.dino, pendingIbot: means.ibot };
    },
  };
}

/** Replaces each rank's rows by their successor and disposes them. */
function replaceEach(
  rows: tf.Tensor2D[],
  next: (x: tf.Tensor2D, rank: number) => tf.Tensor2D,
): void {
  for (const [r, x] of rows.entries()) {
    rows[r] = next(x, r);
    x.dispose();
  }
}

/** The first `count` rows and, if there are more, the rest. Disposes the scores. */
function splitRows(scores: tf.Tensor2D, count: number): RankScores {
  if (scores.shape[0] === count) return { cls: scores };
  const parts = { cls: tf.slice(scores, 0, count), patches: tf.slice(scores, count) };
  scores.dispose();
  return parts;
}

/** max |g|: scores are products of unit vectors with g, so none is larger. */
async function scoreBound(tensors: UnitTensors, head: string): Promise<number> {
  const bound = tf.tidy(() => tf.max(tf.abs(parameterOf(tensors, `${head}.last_layer.weight_g`))));
  const value = (await bound.data())[0] as number;
  bound.dispose();
  return value;
}
