/** KoLeo of DINOv2 and DINOv3: of one rank, of several nearest neighbours, of groups of ranks. */
import { groupKoleo, koleo } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asLoss, asStepGradient, type Check, exactly } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface Group {
  readonly world: number;
  readonly local: number;
  readonly dim: number;
  readonly topk: number;
  /** Rows among which neighbours are looked for; null: all. */
  readonly group: number | null;
}

export const koleoLoss: Kind = {
  name: "koleo-loss",
  matches: (golden) =>
    Array.isArray(golden.config.shapes) &&
    (golden.has("outputs.neighbour.0") ||
      golden.has("outputs.plain.loss.0") ||
      Array.isArray(golden.config.dist)),
  run(golden, check) {
    const { config } = golden;
    onlyKnown("config", config, ["shapes", "topk", "dist"]);
    for (const i of (config.shapes as unknown[]).keys()) {
      const neighbours = `outputs.neighbour.${i}`;
      if (golden.has(neighbours)) checkOne(golden, check, i, "", 1, neighbours);
      if (golden.has(`outputs.plain.loss.${i}`)) checkOne(golden, check, i, "plain.", 1);
      for (const topk of (config.topk ?? []) as number[]) {
        checkOne(golden, check, i, `topk${topk}.`, topk);
      }
    }
    for (const [i, group] of ((config.dist ?? []) as Group[]).entries()) {
      onlyKnown(`dist ${i}`, group, ["world", "local", "dim", "topk", "group"]);
      checkGroup(golden, check, `dist${i}`, group);
    }
  },
};

function checkOne(
  golden: Golden,
  check: Check,
  index: number,
  prefix: string,
  topk: number,
  neighbours?: string,
): void {
  const x = golden.tensor<tf.Tensor2D>(`inputs.x.${index}`);
  const found = koleo(x, 1, topk);
  check.tensor(`outputs.${prefix}loss.${index}`, found.loss, asLoss);
  check.tensor(`grads.${prefix}x.${index}`, found.dx, asStepGradient);
  if (neighbours) check.tensor(neighbours, tf.clone(found.neighbours), exactly);
  tf.dispose([x, found.neighbours]);
}

/** Ranks of a group lie one after the other. */
function checkGroup(golden: Golden, check: Check, name: string, config: Group): void {
  const { world, local, dim, topk } = config;
  const rows = config.group ?? world * local;
  const x = golden.tensor<tf.Tensor2D>(`inputs.${name}.x`, [world * local, dim]);
  const losses: number[] = [];
  const gradient: number[] = [];
  for (let start = 0; start < world * local; start += rows) {
    const part = tf.slice(x, start, rows);
    const found = groupKoleo(part, 1, { topk, ranks: rows / local });
    losses.push(...found.losses.map((loss) => loss.dataSync()[0] as number));
    gradient.push(...found.dx.dataSync());
    tf.dispose([part, found.dx, found.neighbours, ...found.losses]);
  }
  check.tensor(`outputs.${name}.loss`, losses, asLoss);
  check.tensor(`grads.${name}.x`, gradient, asStepGradient);
  x.dispose();
}
