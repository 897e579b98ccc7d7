/**
 * Names of timm: its VisionTransformer (DINO, DINOv2) and its Eva (DINOv3). Neither has a mask token. With registers its VisionTransformer
 * has no position for cls: the sum is stored in cls_token, and read back with a position of zero.
 */
import type { BackboneShape } from "./shape.js";
import { copy, type ForeignTensor, layer, made, part, patchShape, rows, same } from "./tensor.js";

export function timmVitTensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D } = shape;
  const blocks = Array.from({ length: shape.depth }, (_, i) => {
    const name = `blocks.${i}`;
    const scale = (which: string): ForeignTensor[] =>
      shape.layerScale ? [same(`${name}.${which}.gamma`, [D], `${name}.${which}.gamma`)] : [];
    return [
      ...layer(`${name}.norm1`, [D], `${name}.norm1`, true),
      ...layer(`${name}.attn.qkv`, [3 * D, D], `${name}.attn.qkv`, shape.qkvBias),
      ...layer(`${name}.attn.proj`, [D, D], `${name}.attn.proj`, shape.projBias),
      ...scale("ls1"),
      ...layer(`${name}.norm2`, [D], `${name}.norm2`, true),
      ...packedFeedForward(shape, `${name}.mlp`),
      ...scale("ls2"),
    ];
  });
  return [
    ...clsAndPositions(shape),
    ...registersAndPatches(shape),
    ...blocks.flat(),
    ...layer("norm", [D], "norm", true),
  ];
}

function clsAndPositions({ width: D, registers, gridSide }: BackboneShape): ForeignTensor[] {
  const patches = gridSide ** 2;
  if (registers === 0) {
    return [
      same("cls_token", [1, 1, D], "cls_token"),
      same("pos_embed", [1, patches + 1, D], "pos_embed"),
    ];
  }
  const position = { ...copy("pos_embed", 0, 0, D), added: true };
  return [
    made("cls_token", [1, 1, D], [copy("cls_token", 0, 0, D), position]),
    part("pos_embed", [1, patches, D], "pos_embed", D),
  ];
}

function registersAndPatches(shape: BackboneShape): ForeignTensor[] {
  const { width: D, registers } = shape;
  return [
    ...(registers > 0 ? [same("reg_token", [1, registers, D], "register_tokens")] : []),
    same("patch_embed.proj.weight", patchShape(shape), "patch_embed.proj.weight"),
    same("patch_embed.proj.bias", [D], "patch_embed.proj.bias"),
  ];
}

/** SwiGLU's first layer is fused, under the MLP's names. */
function packedFeedForward(shape: BackboneShape, name: string): ForeignTensor[] {
  const { width: D, hidden: H, ffnBias } = shape;
  const gated = shape.ffn === "swiglu";
  return [
    ...layer(`${name}.fc1`, [gated ? 2 * H : H, D], `${name}.${gated ? "w12" : "fc1"}`, ffnBias),
    ...layer(`${name}.fc2`, [D, H], `${name}.${gated ? "w3" : "fc2"}`, ffnBias),
  ];
}

/** Eva: queries and values have biases of their own, keys none. */
export function timmEvaTensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D } = shape;
  const blocks = Array.from({ length: shape.depth }, (_, i) => evaBlock(shape, i));
  return [
    same("cls_token", [1, 1, D], "cls_token"),
    ...registersAndPatches(shape),
    ...blocks.flat(),
    ...layer("norm", [D], "norm", true),
  ];
}

function evaBlock(shape: BackboneShape, i: number): ForeignTensor[] {
  const { width: D, hidden: H, ffnBias } = shape;
  const name = `blocks.${i}`;
  const bias = `${name}.attn.qkv.bias`;
  const scale = (n: number): ForeignTensor[] =>
    shape.layerScale ? [same(`${name}.gamma_${n}`, [D], `${name}.ls${n}.gamma`)] : [];
  const biases = [
    part(`${name}.attn.q_bias`, [D], bias, 0),
    part(`${name}.attn.v_bias`, [D], bias, 2 * D),
  ];
  const gated = [
    ...rows(`${name}.mlp.fc1_g`, [H, D], `${name}.mlp.w12`, 0, ffnBias),
    ...rows(`${name}.mlp.fc1_x`, [H, D], `${name}.mlp.w12`, H, ffnBias),
    ...layer(`${name}.mlp.fc2`, [D, H], `${name}.mlp.w3`, ffnBias),
  ];
  return [
    ...scale(1),
    ...scale(2),
    ...layer(`${name}.norm1`, [D], `${name}.norm1`, true),
    same(`${name}.attn.qkv.weight`, [3 * D, D], `${name}.attn.qkv.weight`),
    ...(shape.qkvBias ? biases : []),
    ...layer(`${name}.attn.proj`, [D, D], `${name}.attn.proj`, shape.projBias),
    ...layer(`${name}.norm2`, [D], `${name}.norm2`, true),
    ...(shape.ffn === "swiglu" ? gated : packedFeedForward(shape, `${name}.mlp`)),
  ];
}
