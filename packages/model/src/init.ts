/**
 * Initial parameters: a pure function of seed and parameter name, as the official code draws them (dinov2
 * models/vision_transformer.py, layers/dino_head.py). What it does not initialise itself, the patch convolution and the
 * prototypes' directions, has PyTorch's default: uniform in +-1 / sqrt(inputs).
 */
import {
  invariant,
  type Parameter,
  type Rng,
  type RunSpec,
  rngOf,
  streams,
  type Unit,
} from "@paddock/contract";

/** The initial flat vector of a unit, in its layout's order; padding is zero. Student and teacher start alike. */
export function initialUnit(spec: Pick<RunSpec, "seed" | "model">, unit: Unit): Float32Array {
  const flat = new Float32Array(unit.elements);
  for (const parameter of unit.parameters) {
    const { name, offset, elements } = parameter;
    const keys = Array.from(name, (character) => character.charCodeAt(0));
    const rng = rngOf(spec.seed, streams.init, ...keys);
    const draw = drawOf(spec, unit, parameter, rng);
    for (let i = offset; i < offset + elements; i++) flat[i] = draw();
  }
  return flat;
}

/** The generator of a parameter's values. */
function drawOf(
  spec: Pick<RunSpec, "model">,
  unit: Unit,
  { name, shape }: Parameter,
  rng: Rng,
): () => number {
  if (name.endsWith("cls_token") || name.endsWith("register_tokens")) {
    return normal(rng, spec.model.tokenStd);
  }
  if (name.endsWith("pos_embed")) return normal(rng, 0.02);
  if (name.endsWith("mask_token")) return () => 0;
  if (name.endsWith(".gamma")) return () => spec.model.layerScale;
  if (name.endsWith("last_layer.weight_g")) return () => 1;
  if (name.endsWith("last_layer.weight_v")) return uniform(rng, shape[1] as number);
  if (name.endsWith("last_layer.weight")) return normal(rng, 0.02);
  if (name.includes("patch_embed.proj")) return uniform(rng, patchInputs(unit));
  if (name.endsWith(".bias")) return () => 0;
  if (name.includes("norm") || shape.length === 1) return () => 1;
  invariant(name.endsWith(".weight"), `no rule for the initial value of ${name}`);
  return normal(rng, spec.model.initStd);
}

/** trunc_normal_ cuts at +-2, for 0.02 a hundred standard deviations away: never. */
function normal(rng: Rng, std: number): () => number {
  return () => std * rng.normal();
}

function uniform(rng: Rng, inputs: number): () => number {
  const limit = 1 / Math.sqrt(inputs);
  return () => rng.between(-limit, limit);
}

function patchInputs(unit: Unit): number {
  const weight = unit.parameters.find(({ name }) => name.endsWith("patch_embed.proj.weight"));
  invariant(weight, "the embedding unit has a patch projection");
  return weight.shape[1] as number;
}
