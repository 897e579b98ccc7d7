/** Small run specs. For tests. */
import { parseRunSpec, type RunSpec, type RunSpecInput } from "@paddock/contract";

/** Grey 28 x 28 images: global crops of 28, four local ones of 14, patches of 7, 4 ranks of 3 images. */
export function greySpec(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 20,
    logicalRanks: 4,
    batchPerRank: 3,
    model: { channels: 1, patchSize: 7 },
    data: { kind: "idx", path: "unused" },
    crops: {
      global: { size: 28, scale: [0.32, 1] },
      local: { size: 14, scale: [0.05, 0.32] },
      localCount: 4,
      mean: [0.5],
      std: [0.25],
    },
    ...changes,
  });
}

/** The official DINOv2 crops of RGB images, 224 and 96 pixels. */
export function officialSpec(changes: Partial<RunSpecInput> = {}): RunSpec {
  return parseRunSpec({
    steps: 20,
    batchPerRank: 2,
    data: { kind: "folder", path: "unused" },
    ...changes,
  });
}
