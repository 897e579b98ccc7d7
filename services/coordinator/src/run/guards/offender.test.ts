import { layoutOf, offenderText } from "@paddock/contract";
import type { Offender, Prepared } from "@paddock/proto";
import { expect, test } from "vitest";
import { examplePrepared, exampleSpec } from "../../testing/example.js";
import { offenderOf } from "./offender.js";

const spec = exampleSpec();
const layout = layoutOf(spec);
const names = ["a", "b", "c", "d"];

/** One message per worker, each with what it saw. */
function prepared(...seen: Offender[][]): Prepared[] {
  return seen.map((offenders, worker) => {
    const position = { generation: 1, step: 3, worker, workers: seen.length };
    return { ...examplePrepared(spec, layout, position), finite: false, offenders };
  });
}

const loss = (rank: number): Offender => {
  return { order: 1_000_000, tensor: "loss koleo", rank, samples: [rank, 10 + rank] };
};

test("the smallest order comes first, whoever saw it; then the smallest rank", () => {
  const gradient = { order: 2_000_000, tensor: "dino_head", rank: 0, samples: [0, 10] };
  const found = offenderOf(layout, prepared([gradient], [loss(3)], [loss(2)]), names, false);
  expect(found).toEqual({
    reason: "loss",
    tensor: "loss koleo",
    rank: 2,
    worker: 2,
    workerName: "c",
    samples: [2, 12],
  });
  expect(offenderText(found)).toBe("loss koleo of logical rank 2 on c (samples 2, 12)");
});

test("a bad sum belongs to the rank that put the bad value in, though all workers see it", () => {
  const seen = (rank: number): Offender => ({
    order: 4,
    tensor: "sum koleo",
    rank,
    samples: [rank],
  });
  const found = offenderOf(
    layout,
    prepared([seen(-1)], [seen(-1), loss(2)], [seen(3)]),
    names,
    false,
  );
  expect(found).toMatchObject({ tensor: "sum koleo", rank: 3, workerName: "c", reason: "loss" });
});

test("a rank's gradient is named by the first parameter of its unit that is bad in anybody's shard", () => {
  const unit = layout.units.find(({ parameters }) => parameters.length > 3);
  if (!unit) throw new Error("expected a unit");
  const order = 2_000_001;
  const parameter = (index: number): Offender => {
    return { order, tensor: unit.parameters[index]?.name ?? "", rank: -1, samples: [] };
  };
  const rank = { order, tensor: unit.name, rank: 1, samples: [4, 5] };
  const other = { ...parameter(0), order: order + 1 };
  const found = offenderOf(
    layout,
    prepared([parameter(2), other], [rank, parameter(3)]),
    names,
    false,
  );
  expect(found).toMatchObject({
    reason: "gradient",
    tensor: unit.parameters[2]?.name,
    rank: 1,
    worker: 1,
    samples: [4, 5],
  });
  // All ranks' own gradients were finite: their sum is nobody's.
  const summed = offenderOf(layout, prepared([parameter(2)], [parameter(3)]), names, false);
  expect(summed).toMatchObject({ rank: null, worker: null, workerName: "", samples: [] });
  expect(offenderText(summed)).toBe(`${unit.parameters[2]?.name}, over all logical ranks`);
});

test("what a loss scale can cause is an overflow as long as there is one; a loss knows no scale", () => {
  const gradient = { order: 2_000_000, tensor: "dino_head", rank: 0, samples: [0] };
  expect(offenderOf(layout, prepared([gradient]), names, true).reason).toBe("overflow");
  expect(offenderOf(layout, prepared([gradient]), names, false).reason).toBe("gradient");
  expect(offenderOf(layout, prepared([loss(0)]), names, true).reason).toBe("loss");
  // Nobody saw anything: the squares for the norms have overflowed.
  expect(offenderOf(layout, prepared([]), names, false)).toMatchObject({
    reason: "gradient",
    tensor: "gradient norm",
    rank: null,
  });
});
