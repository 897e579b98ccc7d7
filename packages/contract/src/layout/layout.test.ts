/** The layouts of the published models have as many parameters as the published models. */
import { expect, test } from "vitest";
import { parseRunSpec, type RunSpecInput } from "../spec/run.js";
import { layoutOf } from "./layout.js";

type Model = NonNullable<RunSpecInput["model"]>;

function backboneCount(model: Model, globalSize: number): number {
  const spec = parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    data: { path: "unused" },
    model,
    crops: {
      global: { size: globalSize, scale: [0.3, 1] },
      local: { size: 7 * (model.patchSize ?? 16), scale: [0.1, 0.3] },
    },
  });
  const units = layoutOf(spec).units.filter(({ submodule }) => submodule === "backbone");
  return units.flatMap(({ parameters }) => parameters).reduce((sum, p) => sum + p.elements, 0);
}

interface Sizes {
  readonly width: number;
  readonly depth: number;
  readonly patchSize: number;
  /** cls, mask token, registers, learned positions. */
  readonly tokens: number;
  /** Values per block that are no weights of its matrices: biases, norms, LayerScale. */
  readonly vectors: number;
  /** Matrices of a block, in units of width^2. */
  readonly matrices: number;
}

/** Counted by hand from the architecture. */
function counted({ width, depth, patchSize, tokens, vectors, matrices }: Sizes): number {
  const patchEmbedding = (3 * patchSize ** 2 + 1) * width;
  const block = matrices * width ** 2 + vectors * width;
  return depth * block + patchEmbedding + tokens * width + 2 * width;
}

const v1: Model = { layerScale: 0, patchSize: 16 };
const v2: Model = { patchSize: 14 };
const v3: Model = { patchSize: 16, positions: "rope", registers: 4, maskKeyBias: true };
const plain = { matrices: 12, vectors: 15 };
const small = { width: 384, depth: 12 };
const base = { width: 768, depth: 12 };
const large = { width: 1024, depth: 24 };

// DINO has no mask token, which our models always have: one width more than published (21.7 M, 85.8 M).
test.each([
  ["small", 21_665_664, { ...small, ...plain, vectors: 13, patchSize: 16, tokens: 1 + 1 + 197 }],
  ["base", 85_798_656, { ...base, ...plain, vectors: 13, patchSize: 16, tokens: 1 + 1 + 197 }],
] as const)("DINO %s/16", (arch, published, sizes) => {
  const count = backboneCount({ ...v1, arch }, 224);
  expect(count).toBe(published + sizes.width);
  expect(count).toBe(counted(sizes));
});

const grid518 = { patchSize: 14, tokens: 1 + 1 + 37 ** 2 + 1 };

test.each([
  ["small", {}, 22_056_576, { ...small, ...plain, ...grid518 }],
  ["base", {}, 86_580_480, { ...base, ...plain, ...grid518 }],
  ["large", {}, 304_368_640, { ...large, ...plain, ...grid518 }],
  [
    "giant2",
    { ffn: "swiglu" },
    1_136_480_768,
    // Hidden width 4096 = 8/3 of 1536: 4 + 3 * 8/3 matrices; biases 3 + 1 + 2 * 8/3 + 1, norms 4, LayerScale 2.
    { width: 1536, depth: 40, ...grid518, matrices: 12, vectors: 11 + 16 / 3 },
  ],
] as const)("DINOv2 %s/14 on 518 pixels", (arch, model, published, sizes) => {
  const count = backboneCount({ ...v2, arch, ...model }, 518);
  expect(count).toBe(published);
  expect(count).toBe(counted(sizes));
});

const rotary = { patchSize: 16, tokens: 1 + 1 + 4 };

// Published to a tenth of a million.
test.each([
  ["small", {}, 21.6, { ...small, ...plain, ...rotary }],
  ["base", {}, 85.7, { ...base, ...plain, ...rotary }],
  ["large", {}, 303.1, { ...large, ...plain, ...rotary }],
  [
    "huge2",
    { ffn: "swiglu", mlpRatio: 6 },
    840.5,
    // Hidden width 5120 = 4 widths.
    { width: 1280, depth: 32, ...rotary, matrices: 16, vectors: 19 },
  ],
] as const)("DINOv3 %s/16", (arch, model, published, sizes) => {
  const count = backboneCount({ ...v3, arch, ...model }, 256);
  expect(Math.abs(count / 1e6 - published)).toBeLessThan(0.15);
  expect(count).toBe(counted(sizes));
});

test("DINOv3 7B/16", () => {
  const published = 6_716_035_072;
  const model: Model = { ffn: "swiglu", mlpRatio: 3, ffnMultiple: 64, qkvBias: false };
  const count = backboneCount({ ...v3, arch: "7b", ...model }, 256);
  expect(count).toBe(published);
  // Hidden width 8192 = 2 widths; no qkv biases.
  const sizes = { width: 4096, depth: 40, ...rotary, matrices: 10, vectors: 12 };
  expect(count).toBe(counted(sizes));
  // Training has a norm of its own for cls tokens of local crops, of which nothing is published.
  const trained = backboneCount({ ...v3, arch: "7b", ...model, untieLocalClsNorm: true }, 256);
  expect(trained).toBe(published + 2 * 4096);
});
