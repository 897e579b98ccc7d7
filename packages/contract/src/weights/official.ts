/**
 * Names of the official repositories: facebookresearch/dino, dinov2, dinov3, each models/vision_transformer.py (or vision_transformer.py).
 * DINOv3 says storage_tokens for registers, w1 and w2 for the halves of w12, and stores two buffers.
 */
import type { BackboneShape } from "./shape.js";
import {
  constant,
  copy,
  type ForeignTensor,
  layer,
  made,
  optional,
  patchShape,
  rows,
  same,
} from "./tensor.js";

export type OfficialVersion = 1 | 2 | 3;

export function officialTensors(shape: BackboneShape, version: OfficialVersion): ForeignTensor[] {
  const blocks = Array.from({ length: shape.depth }, (_, i) => blockTensors(shape, version, i));
  const { width: D } = shape;
  const bias = shape.norm === "layernorm";
  return [
    ...embedTensors(shape, version),
    ...blocks.flat(),
    ...layer("norm", [D], "norm", bias),
    ...(shape.untieClsNorm ? layer("cls_norm", [D], "cls_norm", bias) : []),
    ...(shape.untieLocalClsNorm
      ? layer("local_cls_norm", [D], "local_cls_norm", bias).map(optional)
      : []),
  ];
}

function embedTensors(shape: BackboneShape, version: OfficialVersion): ForeignTensor[] {
  const { width: D, registers, gridSide } = shape;
  const tensors = [same("cls_token", [1, 1, D], "cls_token")];
  if (shape.positions === "learned") {
    tensors.push(same("pos_embed", [1, gridSide ** 2 + 1, D], "pos_embed"));
  } else {
    tensors.push(constant("rope_embed.periods", [D / shape.heads / 4], "periods"));
  }
  if (version > 1) tensors.push(optional(same("mask_token", [1, D], "mask_token")));
  tensors.push(
    same("patch_embed.proj.weight", patchShape(shape), "patch_embed.proj.weight"),
    same("patch_embed.proj.bias", [D], "patch_embed.proj.bias"),
  );
  if (registers > 0) {
    const name = version === 3 ? "storage_tokens" : "register_tokens";
    tensors.push(same(name, [1, registers, D], "register_tokens"));
  }
  return tensors;
}

function blockTensors(shape: BackboneShape, version: OfficialVersion, i: number): ForeignTensor[] {
  const { width: D } = shape;
  const name = `blocks.${i}`;
  const bias = shape.norm === "layernorm";
  const scale = (which: string): ForeignTensor[] =>
    shape.layerScale ? [same(`${name}.${which}.gamma`, [D], `${name}.${which}.gamma`)] : [];
  return [
    ...layer(`${name}.norm1`, [D], `${name}.norm1`, bias),
    ...qkvTensors(shape, `${name}.attn.qkv`),
    ...layer(`${name}.attn.proj`, [D, D], `${name}.attn.proj`, shape.projBias),
    ...scale("ls1"),
    ...layer(`${name}.norm2`, [D], `${name}.norm2`, bias),
    ...feedForward(shape, version, `${name}.mlp`),
    ...scale("ls2"),
  ];
}

/** A masked key bias is stored, and not used: it is not taken over. */
function qkvTensors(shape: BackboneShape, name: string): ForeignTensor[] {
  const { width: D } = shape;
  if (!shape.maskKeyBias) return layer(name, [3 * D, D], name, shape.qkvBias);
  const bias = `${name}.bias`;
  return [
    same(`${name}.weight`, [3 * D, D], `${name}.weight`),
    made(bias, [3 * D], [copy(bias, 0, 0, D), copy(bias, 2 * D, 2 * D, D)]),
    constant(`${name}.bias_mask`, [3 * D], "key-mask"),
  ];
}

function feedForward(
  shape: BackboneShape,
  version: OfficialVersion,
  name: string,
): ForeignTensor[] {
  const { width: D, hidden: H, ffnBias } = shape;
  if (shape.ffn === "mlp") {
    return [
      ...layer(`${name}.fc1`, [H, D], `${name}.fc1`, ffnBias),
      ...layer(`${name}.fc2`, [D, H], `${name}.fc2`, ffnBias),
    ];
  }
  const into =
    version === 3
      ? [
          ...rows(`${name}.w1`, [H, D], `${name}.w12`, 0, ffnBias),
          ...rows(`${name}.w2`, [H, D], `${name}.w12`, H, ffnBias),
        ]
      : layer(`${name}.w12`, [2 * H, D], `${name}.w12`, ffnBias);
  return [...into, ...layer(`${name}.w3`, [D, H], `${name}.w3`, ffnBias)];
}
