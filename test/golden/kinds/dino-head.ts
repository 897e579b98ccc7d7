/** Heads of all three projects: scores, gradients by parameters and input, running statistics of batch norms. */
import {
  backPrototypes,
  bottleneck,
  bottleneckBackward,
  disposeWeights,
  type Head,
  headOf,
  headScores,
  linearBackward,
  prototypeWeights,
  runningStatistics,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asProbability, asStepGradient, type Check } from "../check.js";
import { onlyKnown, variantsOf } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface Variant {
  readonly nlayers?: number;
  /** v1 only: magnitudes stay at 1. */
  readonly norm_last_layer?: boolean;
  readonly use_bn?: boolean;
  readonly mlp_bias?: boolean;
}

const known = [
  "nlayers",
  "norm_last_layer",
  "use_bn",
  "mlp_bias",
  "in_dim",
  "out_dim",
  "hidden_dim",
  "bottleneck_dim",
];

export const dinoHead: Kind = {
  name: "dino-head",
  matches: (golden) =>
    typeof golden.config.variants === "object" &&
    golden.names("params.").some((name) => name.includes(".last_layer.")),
  run(golden, check) {
    for (const [variant, config] of variantsOf<Variant>(golden.config.variants)) {
      onlyKnown(variant, config, known);
      checkVariant(golden, check, variant, config);
    }
  },
};

function checkVariant(golden: Golden, check: Check, variant: string, config: Variant): void {
  const tensors = parametersOf(golden, variant);
  const freezeMagnitude = golden.family === "dinov1" && (config.norm_last_layer ?? true);
  const head = headOf(tensors, "dino_head", { freezeMagnitude });
  checkForm(golden, check, variant, config, head);
  const x = golden.tensor<tf.Tensor2D>("inputs.x");
  check.tensor(`outputs.${variant}.y`, headScores(head, x), asProbability);
  const grads = backward(golden, check, variant, head, x);
  const prefix = `grads.${variant}.`;
  for (const [name, gradient] of Object.entries(grads)) {
    checkGradient(golden, check, prefix + name, gradient);
  }
  // Parameters without a recorded gradient have none here either: magnitudes that are fixed.
  const recorded = golden.names(prefix).map((name) => name.slice(prefix.length));
  check.equal(`${variant} gradients`, Object.keys(grads).sort(), recorded.sort());
  tf.dispose([x, ...Object.values(tensors)]);
}

/**
 * The true gradient of a bias before a batch norm is zero, and what was recorded in fp32 is rounding alone, as the file's fp64 run
 * shows: ours is compared with zero, at the same tolerance.
 */
function checkGradient(golden: Golden, check: Check, name: string, gradient: tf.Tensor): void {
  const { tensors } =
    golden.metadata<{ tensors?: Record<string, [number, number]> }>("noise") ?? {};
  const [noise, largest] = tensors?.[name] ?? [0, 1];
  if (largest > 1e-6 * noise) {
    check.tensor(name, gradient, asStepGradient);
    return;
  }
  check.close(name, gradient, new Float32Array(gradient.size), asStepGradient);
  check.covered(name);
}

/** The parameters of a variant under our names; running statistics are no parameters. */
function parametersOf(golden: Golden, variant: string): Record<string, tf.Tensor> {
  const prefix = `params.${variant}.`;
  const names = golden.names(prefix).filter((name) => !/running_|num_batches/.test(name));
  return Object.fromEntries(
    names.map((name) => [`dino_head.${name.slice(prefix.length)}`, golden.tensor(name)]),
  );
}

function checkForm(
  golden: Golden,
  check: Check,
  variant: string,
  config: Variant,
  { mlp, prototypes }: Head,
): void {
  const form = {
    layers: mlp.length,
    norms: mlp.filter(({ norm }) => norm).length,
    biases: mlp.filter(({ linear }) => linear.bias).length,
    prototypes: prototypes.kind,
  };
  const layers = Math.max(1, config.nlayers ?? 3);
  const expected = {
    layers,
    norms: config.use_bn ? layers - 1 : 0,
    biases: (config.mlp_bias ?? true) ? layers : 0,
    prototypes: golden.family === "dinov3" ? "linear" : "weight-norm",
  };
  check.equal(`${variant} form`, form, expected);
}

/** Gradients of sum(y * cotangent) by recorded names; compares what the forward leaves behind on the way. */
function backward(
  golden: Golden,
  check: Check,
  variant: string,
  head: Head,
  x: tf.Tensor2D,
): Record<string, tf.Tensor> {
  const saved = bottleneck(head.mlp, x);
  const unit = `outputs.${variant}.pre_last`;
  if (golden.has(unit)) check.tensor(unit, tf.clone(saved.unit.y), asProbability);
  for (const [i, norm] of saved.normed.entries()) {
    const name = head.mlp[i]?.norm?.name.replace("dino_head.", "");
    if (norm && name) checkRunning(golden, check, `${variant}.${name}`, norm.x);
  }
  const grads: Record<string, tf.Tensor> = {};
  const weights = prototypeWeights(head.prototypes);
  const dy = golden.tensor<tf.Tensor2D>("inputs.cotangent");
  const last = linearBackward(dy, saved.unit.y, weights.w, { needDx: true, hasBias: false });
  backPrototypes(head.prototypes, weights, last.dw, grads);
  disposeWeights(weights);
  dy.dispose();
  const dx = bottleneckBackward(head.mlp, last.dx as tf.Tensor2D, saved, grads);
  const plain = Object.entries(grads).map(([name, value]) => [
    name.replace("dino_head.", ""),
    value,
  ]);
  return { ...Object.fromEntries(plain), "inputs.x": dx };
}

/** After one call; before it, mean 0 and variance 1 unless the file says otherwise. */
function checkRunning(golden: Golden, check: Check, layer: string, x: tf.Tensor2D): void {
  const before = (name: string, otherwise: number): tf.Tensor1D => {
    const recorded = `params.${layer}.${name}`;
    return golden.has(recorded) ? golden.tensor(recorded) : tf.fill([x.shape[1]], otherwise);
  };
  const start = { mean: before("running_mean", 0), variance: before("running_var", 1) };
  const { mean, variance } = runningStatistics(start, x);
  check.tensor(`outputs.${layer}.running_mean`, mean, asProbability);
  check.tensor(`outputs.${layer}.running_var`, variance, asProbability);
  tf.dispose([start.mean, start.variance]);
}
