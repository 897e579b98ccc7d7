/**
 * Names of Hugging Face's transformers, as its models save them: ViTModel (DINO), Dinov2Model, Dinov2WithRegistersModel and
 * DINOv3ViTModel. Queries, keys and values are layers of their own.
 */
import type { BackboneShape } from "./shape.js";
import { constant, type ForeignTensor, layer, optional, patchShape, rows, same } from "./tensor.js";

/** ViTModel: DINO. Its pooler is no part of DINO; written as the identity, so that nothing is left to be drawn at random. */
export function vitTensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D, hidden: H } = shape;
  const blocks = Array.from({ length: shape.depth }, (_, i): ForeignTensor[] => {
    const [theirs, ours] = [`encoder.layer.${i}`, `blocks.${i}`];
    return [
      ...layer(`${theirs}.layernorm_before`, [D], `${ours}.norm1`, true),
      ...attention(shape, theirs, ours),
      ...layer(`${theirs}.layernorm_after`, [D], `${ours}.norm2`, true),
      ...layer(`${theirs}.intermediate.dense`, [H, D], `${ours}.mlp.fc1`, true),
      ...layer(`${theirs}.output.dense`, [D, H], `${ours}.mlp.fc2`, true),
    ];
  });
  return [
    ...embedTensors(shape).map((tensor) =>
      tensor.name === "embeddings.mask_token"
        ? { ...tensor, shape: [1, 1, D], presence: "accepted" as const }
        : tensor,
    ),
    ...blocks.flat(),
    ...layer("layernorm", [D], "norm", true),
    constant("pooler.dense.weight", [D, D], "identity", false),
    constant("pooler.dense.bias", [D], "zeros", false),
  ];
}

/** Dinov2Model, and with registers Dinov2WithRegistersModel. They always scale their branches: without LayerScale by ones. */
export function dinov2Tensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D } = shape;
  const blocks = Array.from({ length: shape.depth }, (_, i): ForeignTensor[] => {
    const [theirs, ours] = [`encoder.layer.${i}`, `blocks.${i}`];
    return [
      ...layer(`${theirs}.norm1`, [D], `${ours}.norm1`, true),
      ...attention(shape, theirs, ours),
      layerScale(shape, `${theirs}.layer_scale1.lambda1`, `${ours}.ls1.gamma`),
      ...layer(`${theirs}.norm2`, [D], `${ours}.norm2`, true),
      ...feedForward(shape, theirs, ours),
      layerScale(shape, `${theirs}.layer_scale2.lambda1`, `${ours}.ls2.gamma`),
    ];
  });
  return [...embedTensors(shape), ...blocks.flat(), ...layer("layernorm", [D], "norm", true)];
}

function feedForward(shape: BackboneShape, theirs: string, ours: string): ForeignTensor[] {
  const { width: D, hidden: H } = shape;
  return shape.ffn === "mlp"
    ? [
        ...layer(`${theirs}.mlp.fc1`, [H, D], `${ours}.mlp.fc1`, true),
        ...layer(`${theirs}.mlp.fc2`, [D, H], `${ours}.mlp.fc2`, true),
      ]
    : [
        ...layer(`${theirs}.mlp.weights_in`, [2 * H, D], `${ours}.mlp.w12`, true),
        ...layer(`${theirs}.mlp.weights_out`, [D, H], `${ours}.mlp.w3`, true),
      ];
}

function layerScale(shape: BackboneShape, theirs: string, ours: string): ForeignTensor {
  return shape.layerScale
    ? same(theirs, [shape.width], ours)
    : constant(theirs, [shape.width], "ones");
}

function embedTensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D, registers, gridSide } = shape;
  const patch = "embeddings.patch_embeddings.projection";
  return [
    same("embeddings.cls_token", [1, 1, D], "cls_token"),
    optional(same("embeddings.mask_token", [1, D], "mask_token")),
    same("embeddings.position_embeddings", [1, gridSide ** 2 + 1, D], "pos_embed"),
    ...(registers > 0
      ? [same("embeddings.register_tokens", [1, registers, D], "register_tokens")]
      : []),
    same(`${patch}.weight`, patchShape(shape), "patch_embed.proj.weight"),
    same(`${patch}.bias`, [D], "patch_embed.proj.bias"),
  ];
}

function attention(shape: BackboneShape, theirs: string, ours: string): ForeignTensor[] {
  const { width: D, qkvBias } = shape;
  const inner = ["query", "key", "value"].flatMap((name, i) =>
    rows(`${theirs}.attention.attention.${name}`, [D, D], `${ours}.attn.qkv`, i * D, qkvBias),
  );
  return [
    ...inner,
    ...layer(`${theirs}.attention.output.dense`, [D, D], `${ours}.attn.proj`, true),
  ];
}

/** DINOv3ViTModel. Its rotary frequencies are computed, not stored. */
export function dinov3Tensors(shape: BackboneShape): ForeignTensor[] {
  const { width: D, registers } = shape;
  const blocks = Array.from({ length: shape.depth }, (_, i) => dinov3Block(shape, i));
  return [
    same("embeddings.cls_token", [1, 1, D], "cls_token"),
    optional(same("embeddings.mask_token", [1, 1, D], "mask_token")),
    registers > 0
      ? same("embeddings.register_tokens", [1, registers, D], "register_tokens")
      : constant("embeddings.register_tokens", [1, 0, D], "zeros"),
    same("embeddings.patch_embeddings.weight", patchShape(shape), "patch_embed.proj.weight"),
    same("embeddings.patch_embeddings.bias", [D], "patch_embed.proj.bias"),
    ...blocks.flat(),
    ...layer("norm", [D], "norm", true),
  ];
}

function dinov3Block(shape: BackboneShape, i: number): ForeignTensor[] {
  const { width: D, hidden: H, qkvBias, maskKeyBias, projBias, ffnBias } = shape;
  const [theirs, ours] = [`layer.${i}`, `blocks.${i}`];
  const { attn, mlp } = { attn: `${theirs}.attention`, mlp: `${theirs}.mlp` };
  const gated = shape.ffn === "swiglu";
  return [
    ...layer(`${theirs}.norm1`, [D], `${ours}.norm1`, true),
    ...rows(`${attn}.q_proj`, [D, D], `${ours}.attn.qkv`, 0, qkvBias),
    ...rows(`${attn}.k_proj`, [D, D], `${ours}.attn.qkv`, D, qkvBias && !maskKeyBias),
    ...rows(`${attn}.v_proj`, [D, D], `${ours}.attn.qkv`, 2 * D, qkvBias),
    ...layer(`${attn}.o_proj`, [D, D], `${ours}.attn.proj`, projBias),
    layerScale(shape, `${theirs}.layer_scale1.lambda1`, `${ours}.ls1.gamma`),
    ...layer(`${theirs}.norm2`, [D], `${ours}.norm2`, true),
    ...(gated
      ? [
          ...rows(`${mlp}.gate_proj`, [H, D], `${ours}.mlp.w12`, 0, ffnBias),
          ...rows(`${mlp}.up_proj`, [H, D], `${ours}.mlp.w12`, H, ffnBias),
        ]
      : layer(`${mlp}.up_proj`, [H, D], `${ours}.mlp.fc1`, ffnBias)),
    ...layer(`${mlp}.down_proj`, [D, H], `${ours}.mlp.${gated ? "w3" : "fc2"}`, ffnBias),
    layerScale(shape, `${theirs}.layer_scale2.lambda1`, `${ours}.ls2.gamma`),
  ];
}
