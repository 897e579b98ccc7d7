/** Places in which a port of the recipe goes wrong easily, as changes of the source. */
export interface Mutation {
  readonly name: string;
  /** Below the repository. */
  readonly file: string;
  /** Text that occurs once. */
  readonly find: string;
  readonly replace: string;
}

const model = "packages/model/src";
const contract = "packages/contract/src";

export const mutations: readonly Mutation[] = [
  {
    name: "the centre is added instead of subtracted",
    file: `${model}/loss/centering.ts`,
    find: "tf.sub(scores, tf.tensor1d(center))",
    replace: "tf.add(scores, tf.tensor1d(center))",
  },
  {
    name: "the centre moves by the new mean's share the wrong way round",
    file: `${model}/loss/centering.ts`,
    find: "value * momentum + (pending[k] as number) * (1 - momentum)",
    replace: "value * (1 - momentum) + (pending[k] as number) * momentum",
  },
  {
    name: "the pending mean is folded in after use, a step too late",
    file: `${model}/step/teacher.ts`,
    find: "const used = applyPending(before, spec.loss.centerMomentum);",
    replace:
      "const used = { ...before, pendingDino: null, pendingIbot: null };\n  void applyPending;",
  },
  {
    name: "KoLeo finds each feature as its own neighbour",
    file: `${model}/loss/koleo.ts`,
    find: "diagonal[i * (n + 1)] = -3",
    replace: "diagonal[i * (n + 1)] = 0",
  },
  {
    name: "KoLeo without its minus",
    file: `${model}/loss/koleo.ts`,
    find: "tf.neg(tf.mean(ranks === 1 ? logs : tf.slice(logs, rank * terms, terms)))",
    replace: "tf.mean(ranks === 1 ? logs : tf.slice(logs, rank * terms, terms))",
  },
  {
    name: "KoLeo's gradient reaches one end of a pair only",
    file: `${model}/loss/koleo.ts`,
    find: "scatterAddRows(summed(toward, topk), tf.neg(toward), neighbours)",
    replace: "summed(toward, topk)",
  },
  {
    name: "iBOT is averaged over masked crops instead of all",
    file: `${model}/step/score-targets.ts`,
    find: "weight * (factor / crops)",
    replace: "weight * (factor / (crops / 2))",
  },
  {
    name: "a global crop meets its own teacher view",
    file: `${model}/step/score-targets.ts`,
    find: "(row + images) % (2 * images)",
    replace: "row % (2 * images)",
  },
  {
    name: "local and global terms are normalised apart",
    file: `${model}/step/score-targets.ts`,
    find: "(lossScale * loss.dino) / ((local + global) * images)",
    replace: "(lossScale * loss.dino) / (local * images)",
  },
  {
    name: "Sinkhorn without the row maximum taken back",
    file: `${model}/loss/sinkhorn.ts`,
    find: "v: tf.exp(tf.div(tf.sub(top, shift), temperature)) as tf.Tensor2D,",
    replace: "v: tf.onesLike(top) as tf.Tensor2D,",
  },
  {
    name: "norms are decayed",
    file: `${contract}/layout/layout.ts`,
    find: 'return !(name.includes("norm") || name.includes("gamma"));',
    replace: 'return !name.includes("gamma");',
  },
  {
    name: "vectors are decayed by DINO's rule",
    file: `${contract}/layout/layout.ts`,
    find: 'if (rule === "matrices") return shape.length > 1;',
    replace: 'if (rule === "matrices") return shape.length > 0;',
  },
  {
    name: "layer decay counts one layer less",
    file: `${contract}/layout/layout.ts`,
    find: "rate ** (depth + 1 - id)",
    replace: "rate ** (depth - id)",
  },
  {
    name: "the last layer is never frozen",
    file: `${contract}/schedule.ts`,
    find: "step < schedules.freezeLastLayerSteps ? 0 : learningRate",
    replace: "learningRate",
  },
  {
    name: "DINO's frozen last layer collects moments",
    file: `${model}/optim/update.ts`,
    find: 'isLastLayer && optimizer.freezeLastLayer === "gradient" && step < schedules.freezeLastLayerSteps',
    replace:
      'isLastLayer && optimizer.freezeLastLayer === "gradient" && step < schedules.freezeLastLayerSteps - 1',
  },
  {
    name: "the warm-up leaves out its end point",
    file: `${contract}/schedule.ts`,
    find: "((s.peak - s.start) * warm) / (s.warmupSteps - 1)",
    replace: "((s.peak - s.start) * warm) / s.warmupSteps",
  },
  {
    name: "the cosine reaches its end inside the schedule",
    file: `${contract}/schedule.ts`,
    find: "(1 + Math.cos((Math.PI * at) / n))",
    replace: "(1 + Math.cos((Math.PI * at) / (n - 1)))",
  },
  {
    name: "DINOv3's warm-up includes its end point",
    file: `${contract}/schedule.ts`,
    find: "((s.peak - s.start) * step) / s.warmupSteps;",
    replace: "((s.peak - s.start) * step) / (s.warmupSteps - 1);",
  },
  {
    name: "DINOv3's square-root rule without its factor of 4",
    file: `${contract}/schedule.ts`,
    find: "learningRate * (version === 3 ? 4 : 1)",
    replace: "learningRate",
  },
  {
    name: "the teacher follows the student before the student's step",
    file: `${model}/optim/update.ts`,
    find: "  const { optimizer } = o.spec;\n  if (optimizer.clipBy",
    replace:
      "  vectors.ema(shard.teacher, shard.student, o.scalars.momentum);\n  const { optimizer } = o.spec;\n  if (optimizer.clipBy",
  },
  {
    name: "gradients are clipped by one norm of everything",
    file: `${model}/optim/update.ts`,
    find: "const clip = clipOf(unit.submodule, o);",
    replace:
      "const clip = clipCoefficient(Math.hypot(...Object.values(o.norms)), optimizer.clipNorm);",
  },
  {
    name: "stochastic depth is not scaled up",
    file: `${model}/vit/stochastic-depth.ts`,
    find: "scales.push(count / keep)",
    replace: "scales.push(1)",
  },
  {
    name: "rotary coordinates are taken at patches' corners",
    file: `${model}/vit/rope.ts`,
    find: "r(r(i + 0.5) / over)",
    replace: "r(r(i) / over)",
  },
  {
    name: "rotary angles rotate registers too",
    file: `${model}/vit/rope.ts`,
    find: "prefix: 1 + registers, dtype: rope.dtype",
    replace: "prefix: 1, dtype: rope.dtype",
  },
  {
    name: "cls tokens of local crops share the norm of global ones",
    file: `${model}/vit/output.ts`,
    find: 'localCls: ["local_cls_norm", "cls_norm"]',
    replace: 'localCls: ["cls_norm"]',
  },
  {
    name: "the Gram loss without normalised patches",
    file: `${model}/loss/gram.ts`,
    find: "return normalized ? l2Normalize(x, normalizeEps)",
    replace: "return false ? l2Normalize(x, normalizeEps)",
  },
  {
    name: "DINOv3's masks hold fewer patches than asked for",
    file: "packages/data/src/masks.ts",
    find: "if (exact && masked < target)",
    replace: "if (exact && masked < target - 1)",
  },
  {
    name: "blur as the paper has it where the official code is meant",
    file: `${contract}/spec/data.ts`,
    find: 'color.blur === "official" ? [0, 0.9, 0.5] : [1, 0.1, 0.5]',
    replace: 'color.blur === "official" ? [1, 0.1, 0.5] : [1, 0.1, 0.5]',
  },
];
