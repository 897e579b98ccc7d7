/**
 * Softmax centring of teacher scores, with the official one-step lag: a step's batch mean is only stored, and enters the
 * centre at the next step, before use (dinov2 loss/dino_clstoken_loss.py, ibot_patch_loss.py).
 * Shapes: N rows, K prototypes.
 */
import type { RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SumAcrossRanks } from "./sinkhorn.js";

/** State of softmax centring, part of a checkpoint. All null with Sinkhorn; iBOT's are null without iBOT. */
export interface Centers {
  /** [K] centre as used by the last step. */
  readonly dino: Float32Array | null;
  readonly ibot: Float32Array | null;
  /** [K] mean teacher scores of the last step, which enter the centre in the next one; null before the first. */
  readonly pendingDino: Float32Array | null;
  readonly pendingIbot: Float32Array | null;
}

/** The centres before the first step: zeros. */
export function initialCenters(spec: Pick<RunSpec, "loss" | "heads">): Centers {
  const none = { dino: null, ibot: null, pendingDino: null, pendingIbot: null };
  if (spec.loss.centering === "sinkhorn") return none;
  const { prototypes } = spec.heads.ibot ?? spec.heads.dino;
  return {
    ...none,
    dino: new Float32Array(spec.heads.dino.prototypes),
    ibot: spec.loss.ibot > 0 ? new Float32Array(prototypes) : null,
  };
}

/** The centres with their pending means folded in: what the next step uses. */
export function applyPending(centers: Centers, momentum: number): Centers {
  return {
    dino: fold(centers.dino, centers.pendingDino, momentum),
    ibot: fold(centers.ibot, centers.pendingIbot, momentum),
    pendingDino: null,
    pendingIbot: null,
  };
}

function fold(
  center: Float32Array | null,
  pending: Float32Array | null,
  momentum: number,
): Float32Array | null {
  if (!center || !pending) return center;
  return center.map((value, k) => value * momentum + (pending[k] as number) * (1 - momentum));
}

/** softmax((scores - centre) / temperature) [N,K]. Leaves the scores to the caller. */
export function centredSoftmax(
  scores: tf.Tensor2D,
  center: Float32Array,
  temperature: number,
): tf.Tensor2D {
  return tf.tidy(() => tf.softmax(tf.div(tf.sub(scores, tf.tensor1d(center)), temperature)));
}

/** Column means of a step's teacher scores by local rank, computed but not read: reading waits for a device. */
export interface LaunchedMeans {
  /** [K] of all rows. */
  readonly dino: readonly tf.Tensor[];
  /** [K] of the masked patches; undefined for a rank without any, or without iBOT. */
  readonly ibot: readonly (tf.Tensor | undefined)[];
}

/** Leaves the scores to the caller, who owns the result until `readMeans`. */
export function launchMeans(
  dino: readonly tf.Tensor2D[],
  ibot: readonly (tf.Tensor2D | undefined)[],
): LaunchedMeans {
  return {
    dino: dino.map(columnMeans),
    ibot: dino.map((_, rank) => {
      const patches = ibot[rank];
      return patches && columnMeans(patches);
    }),
  };
}

/**
 * The means over all logical ranks, to be folded into the centres at the next step. DINO: over all rows (every rank has as many).
 * iBOT: the mean over a rank's masked patches, then the unweighted mean over the ranks that have any; null if none has.
 * Disposes `means`.
 */
export async function readMeans(
  means: LaunchedMeans,
  sizes: { readonly dino: number; readonly ibot: number; readonly logicalRanks: number },
  sum: SumAcrossRanks,
): Promise<{ readonly dino: Float32Array; readonly ibot: Float32Array | null }> {
  const perRank: Float32Array[] = [];
  for (const [rank, dino] of means.dino.entries()) {
    const packed = new Float32Array(sizes.dino + sizes.ibot + 1);
    packed.set((await dino.data()) as Float32Array);
    const patches = means.ibot[rank];
    if (patches) {
      packed.set((await patches.data()) as Float32Array, sizes.dino);
      packed[sizes.dino + sizes.ibot] = 1;
    }
    tf.dispose(patches ? [dino, patches] : dino);
    perRank.push(packed);
  }
  const total = await sum("centers", perRank);
  const ranksWithPatches = total[sizes.dino + sizes.ibot] as number;
  return {
    dino: total.slice(0, sizes.dino).map((value) => value / sizes.logicalRanks),
    ibot: ranksWithPatches
      ? total.slice(sizes.dino, sizes.dino + sizes.ibot).map((value) => value / ranksWithPatches)
      : null,
  };
}

function columnMeans(scores: tf.Tensor2D): tf.Tensor {
  return tf.tidy(() => {
    const rows = scores.shape[0];
    return tf.div(tf.matMul(tf.ones([1, rows]), scores), rows);
  });
}
