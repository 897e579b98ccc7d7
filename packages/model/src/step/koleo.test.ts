import type { Losses } from "@paddock/contract";
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { batchOf, run, specOf } from "../testing/workers.js";
import type { RankBatch } from "./contract.js";

beforeAll(async () => {
  await tf.setBackend("wasm");
});

test("a KoLeo group is some consecutive ranks, wherever they run", async () => {
  const of = (koleoGroup: number | "all" | null) =>
    specOf({ logicalRanks: 4, loss: { koleoGroup, dino: 0, ibot: 0 } });
  const whole = await run(of(4), [[0, 1, 2, 3]]);
  for (const dealt of [
    [
      [0, 2],
      [1, 3],
    ],
    [[0], [1, 2], [3]],
  ]) {
    const parts = await run(of(4), dealt);
    expect(parts.losses).toEqual(whole.losses);
    expect(parts.gradients).toEqual(whole.gradients);
  }
  // A group of one rank's size is no group: nothing is gathered, and nothing changes.
  const [own, alone] = [await run(of(2), [[0, 1, 2, 3]]), await run(of(null), [[0, 1, 2, 3]])];
  expect(own.gradients).toEqual(alone.gradients);
  expect(own.gradients).not.toEqual(whole.gradients);
});

test("each KoLeo group is by itself", async () => {
  const base = specOf();
  const of = (logicalRanks: number) =>
    specOf({
      logicalRanks,
      model: { ...base.model, dropPathRate: 0 },
      loss: { koleoGroup: 4, dino: 0, ibot: 0 },
    });
  const both = await run(of(4), [[0, 1, 2, 3]]);
  const second = await run(of(2), [[0, 1]], (rank) => ({ ...batchOf(of(4), rank + 2), rank }));
  for (const rank of [0, 1]) {
    expect(second.losses.get(rank)).toEqual(both.losses.get(rank + 2));
    for (const unit of ["embed", "block.1", "norm"]) {
      expect(second.gradients.get(`${rank} ${unit}`)).toEqual(
        both.gradients.get(`${rank + 2} ${unit}`),
      );
    }
  }
});

test("ranks that form one KoLeo group train like one rank with all their images", async () => {
  const base = specOf();
  const of = (logicalRanks: number, batchPerRank: number) =>
    specOf({
      logicalRanks,
      batchPerRank,
      model: { ...base.model, dropPathRate: 0 },
      loss: { koleoGroup: "all", koleoTopk: 2, dino: 0, ibot: 0 },
    });
  const spec = of(3, 2);
  const parts = [0, 1, 2].map((rank) => batchOf(spec, rank));
  const cropOf = (pixels: Float32Array | null, crop: number) => {
    const size = (pixels?.length ?? 0) / 2;
    return pixels?.subarray(crop * size, (crop + 1) * size) ?? new Float32Array(0);
  };
  const together = (pick: (batch: RankBatch) => Float32Array | null) =>
    Float32Array.from(
      [0, 1].flatMap((crop) => parts.flatMap((part) => [...cropOf(pick(part), crop)])),
    );
  const one = await run(of(1, 6), [[0]], () => ({
    rank: 0,
    globalCrops: together((batch) => batch.globalCrops),
    localCrops: together((batch) => batch.localCrops),
    maskRows: new Int32Array(0),
    maskWeights: new Float32Array(0),
  }));
  const several = await run(spec, [[0], [1, 2]]);
  for (const unit of ["embed", "block.0", "norm"]) {
    const expected = one.gradients.get(`0 ${unit}`) ?? new Float32Array(0);
    const largest = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    expect(largest).toBeGreaterThan(0);
    for (const [i, value] of expected.entries()) {
      const sum = [0, 1, 2].reduce(
        (total, rank) => total + (several.gradients.get(`${rank} ${unit}`)?.[i] ?? 0),
        0,
      );
      expect(Math.abs(sum / 3 - value)).toBeLessThan(1e-4 * largest);
    }
  }
  const koleos = [...several.losses.values()].map((parts_) => (parts_ as Losses).koleo);
  const mean = koleos.reduce((a, b) => a + b, 0) / 3;
  expect(mean).toBeCloseTo((one.losses.get(0) as Losses).koleo, 5);
});
