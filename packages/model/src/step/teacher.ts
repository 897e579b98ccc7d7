/** Teacher forward: global crops only, evaluation mode, no masks; then its scores become targets. */
import { frozenSpecOf, type RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { headOf, headScores } from "../head/head.js";
import { scoreBound } from "../head/prototypes.js";
import {
  applyPending,
  type Centers,
  centredSoftmax,
  launchMeans,
  readMeans,
} from "../loss/centering.js";
import { sinkhorn } from "../loss/sinkhorn.js";
import { type VitConfig, vitConfigOf } from "../vit/config.js";
import { type CropGroup, patchify } from "../vit/embed.js";
import { clsRows, patchRows } from "../vit/output.js";
import { backboneForward } from "./backbone-forward.js";
import {
  cropGroups,
  hasOwnIbotHead,
  maskedRows,
  observeRanks,
  type StepContext,
} from "./context.js";
import type { RankBatch, Side } from "./contract.js";
import { gramRows, patchesPerCrop } from "./gram.js";
import { watchFeatures, watchScores } from "./monitor.js";

/** Teacher scores of one local rank. */
interface RankScores {
  /** [2B,K] in the order of the global crops. */
  cls?: tf.Tensor2D;
  /** [masked,K]; absent for a rank without masked patches, or without iBOT. */
  patches?: tf.Tensor2D;
}

export interface TeacherScores {
  readonly ranks: readonly RankScores[];
  /** Upper bounds of the scores' magnitude. Only Sinkhorn needs them. */
  readonly bounds: { dino: number; ibot: number };
}

/** Targets of one local rank: rows are probabilities over prototypes. */
export interface RankTargets {
  /** [2B,K] in the order of the global crops. */
  readonly cls: tf.Tensor2D;
  /** [masked,K] */
  readonly patches: tf.Tensor2D | undefined;
}

/** What the teacher makes of the global crops. */
export interface TeacherPass extends TeacherScores {
  /** [G,D] normed patches of each rank for the Gram loss, if this teacher is its teacher too. */
  readonly gram: readonly tf.Tensor2D[] | undefined;
}

export async function teacherForward(ctx: StepContext): Promise<TeacherPass> {
  const { spec, config, batches, held } = ctx;
  const network = targetNetwork(spec);
  const crops = batches.map((batch) => {
    const [global] = cropGroups(ctx, batch, false) as [CropGroup];
    const patches = patchify(config, global);
    ctx.globalPatches.push(patches);
    return { ...global, patches };
  });
  const withGram = spec.loss.gram?.teacher === "ema";
  const patches = withGram ? patchesPerCrop(ctx) : 0;
  const chosen = batches.map((batch) =>
    withGram ? gramRows(ctx, batch, patches) : new Int32Array(0),
  );
  const rows = await backboneForward(ctx, {
    ...network,
    crops,
    rowsOf: (r, sequences) => {
      const { registers } = network.config;
      const masked = maskedRows(spec, batches[r] as RankBatch);
      const patches = [...masked, ...(chosen[r] as Int32Array)];
      return [
        { kind: "cls", rows: clsRows(sequences, 0) },
        { kind: "patch", rows: patchRows(sequences, registers, patches) },
      ];
    },
  });
  for (const h of rows) watchFeatures(ctx, h);
  if (!withGram) return { ...(await teacherHeads(ctx, network.side, rows)), gram: undefined };
  const gram = held.hold(
    rows.map((h, r) => tf.slice(h, h.shape[0] - (chosen[r] as Int32Array).length)),
  );
  for (const [r, h] of rows.entries()) {
    rows[r] = tf.slice(h, 0, h.shape[0] - (chosen[r] as Int32Array).length);
    h.dispose();
  }
  return { ...(await teacherHeads(ctx, network.side, rows)), gram };
}

/** Whose network makes the targets: the EMA teacher's, or that of a distillation teacher. */
function targetNetwork(spec: RunSpec): { readonly side: Side; readonly config: VitConfig } {
  const side = spec.distillation ? "frozen" : "teacher";
  return { side, config: vitConfigOf(spec.distillation ? frozenSpecOf(spec) : spec) };
}

/** Scores of the selected rows [2B + masked, D] of each rank, which it disposes. */
async function teacherHeads(
  ctx: StepContext,
  side: Side,
  rows: readonly tf.Tensor2D[],
): Promise<TeacherScores> {
  const { spec, walk, held } = ctx;
  const clsCount = 2 * spec.batchPerRank;
  const ranks: RankScores[] = held.hold(rows.map(() => ({})));
  const bounds = { dino: 0, ibot: 0 };
  const ownHead = hasOwnIbotHead(spec);
  const bounded = spec.loss.centering === "sinkhorn"; // reading them waits for a device
  await walk(side, "dino_head", async (tensors) => {
    const head = headOf(tensors, "dino_head");
    if (bounded) bounds.dino = bounds.ibot = await scoreBound(head.prototypes);
    for (const [r, h] of rows.entries()) {
      const part = ownHead ? tf.slice(h, 0, clsCount) : tf.clone(h);
      const scores = headScores(head, part);
      part.dispose();
      Object.assign(ranks[r] as RankScores, splitRows(scores, clsCount));
    }
  });
  if (ownHead) {
    await walk(side, "ibot_head", async (tensors) => {
      const head = headOf(tensors, "ibot_head");
      if (bounded) bounds.ibot = await scoreBound(head.prototypes);
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
  observeRanks(ctx, "teacher-cls-scores", cls);
  observeRanks(ctx, "teacher-patch-scores", patches);
  watchScores(ctx, cls, centers);
  const outcome =
    spec.loss.centering === "sinkhorn"
      ? { ...(await sinkhornTargets(ctx, cls, patches, bounds)), centers: async () => centers }
      : centredTargets(ctx, cls, patches, centers);
  observeRanks(ctx, "cls-targets", outcome.cls);
  observeRanks(ctx, "patch-targets", outcome.patches);
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

/** The first `count` rows and, if there are more, the rest. Disposes the scores. */
function splitRows(scores: tf.Tensor2D, count: number): RankScores {
  if (scores.shape[0] === count) return { cls: scores };
  const parts = { cls: tf.slice(scores, 0, count), patches: tf.slice(scores, count) };
  scores.dispose();
  return parts;
}
