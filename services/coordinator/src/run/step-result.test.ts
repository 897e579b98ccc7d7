import { layoutOf, sumTree } from "@paddock/contract";
import fc from "fast-check";
import { expect, test } from "vitest";
import { examplePrepared, exampleSpec } from "../testing/example.js";
import { nextScaler } from "./commit.js";
import { stepResult } from "./step-result.js";

const spec = exampleSpec({ logicalRanks: 7, fleet: { workers: 1 } });
const layout = layoutOf(spec);

function prepare(workers: number, step = 3) {
  return Array.from({ length: workers }, (_, worker) =>
    examplePrepared(spec, layout, { generation: 1, step, worker, workers }),
  );
}

test("losses and norms have the same bits for every number of workers and every order of arrival", () => {
  const alone = stepResult(layout, 7, prepare(1));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 7 }), fc.infiniteStream(fc.nat()), (workers, order) => {
      const keyed = prepare(workers).map((p) => ({ p, key: order.next().value as number }));
      keyed.sort((a, b) => a.key - b.key);
      const { losses, gradNorm, images } = stepResult(
        layout,
        7,
        keyed.map(({ p }) => p),
      );
      expect(losses).toEqual(alone.losses);
      expect(gradNorm).toEqual(alone.gradNorm);
      expect(images).toBe(14);
    }),
  );
});

test("the mean of a loss is the tree sum over logical ranks, divided by their number", () => {
  const messages = prepare(3);
  const totals = messages.flatMap(({ losses }) => losses).map(({ total }) => total);
  const sum = sumTree(
    { start: 0, end: 7 },
    ({ start, end }) => (end - start === 1 ? totals[start] : undefined),
    (a, b) => a + b,
  );
  expect(stepResult(layout, 7, messages).losses.total).toBe(sum / 7);
});

test("a gradient norm is the root of the squares of all units of its submodule", () => {
  const messages = prepare(2);
  const { gradNorm } = stepResult(layout, 7, messages);
  const squares = { backbone: 0, dino_head: 0, ibot_head: 0 };
  for (const unit of layout.units) {
    for (const root of messages.flatMap(({ normRoots }) => normRoots)) {
      if (root.unit === unit.name) squares[unit.submodule] += root.sum;
    }
  }
  expect(gradNorm["backbone"]).toBeCloseTo(Math.sqrt(squares.backbone), 10);
  expect(gradNorm["dino_head"]).toBeCloseTo(Math.sqrt(squares.dino_head), 10);
  expect(Object.keys(gradNorm)).toEqual(["backbone", "dino_head"]);
});

test("clipped by tensor, workers are told every parameter's norm, the record keeps those of submodules", () => {
  const byTensor = exampleSpec({ logicalRanks: 7, optimizer: { clipBy: "tensor" } });
  const of = layoutOf(byTensor);
  const results = [1, 3].map((workers) =>
    stepResult(
      of,
      7,
      Array.from({ length: workers }, (_, worker) =>
        examplePrepared(byTensor, of, { generation: 1, step: 3, worker, workers }),
      ),
    ),
  );
  const [one, three] = results;
  expect(three?.updateNorms).toEqual(one?.updateNorms);
  expect(Object.keys(one?.gradNorm ?? {})).toEqual(["backbone", "dino_head"]);
  expect(one?.updateNorms["backbone.cls_token"]).toBeGreaterThan(0);
});

test("one worker that is not finite, or a loss that is not, makes the step not finite", () => {
  const [first, ...others] = prepare(3);
  if (!first) throw new Error("expected a worker");
  expect(stepResult(layout, 7, [first, ...others]).finite).toBe(true);
  const said = { ...first, finite: false };
  expect(stepResult(layout, 7, [said, ...others]).finite).toBe(false);
  const [loss, ...losses] = first.losses;
  if (!loss) throw new Error("expected a loss");
  const infinite = { ...first, losses: [{ ...loss, total: Number.POSITIVE_INFINITY }, ...losses] };
  expect(stepResult(layout, 7, [infinite, ...others]).finite).toBe(false);
});

test("the seconds are those of the slowest worker, with every part", () => {
  const [first, second] = prepare(2);
  if (!first || !second) throw new Error("expected two workers");
  const fast = { ...first, seconds: { data: 1, gather: 1 } };
  const slow = { ...second, seconds: { data: 0.5, backward: 9 } };
  expect(stepResult(layout, 7, [fast, slow]).seconds).toEqual({
    data: 0.5,
    gather: 0,
    teacher: 0,
    student: 0,
    loss: 0,
    backward: 9,
    reduce: 0,
    update: 0,
    commit: 0,
    wait: 0,
  });
});

test("a worker that leaves out a rank or a chunk is a bug that is named", () => {
  const [first, second] = prepare(2);
  if (!first || !second) throw new Error("expected two workers");
  expect(() => stepResult(layout, 7, [first])).toThrow("the losses of logical rank 3");
  const holes = { ...second, normRoots: second.normRoots.slice(1) };
  expect(() => stepResult(layout, 7, [first, holes])).toThrow(
    /the squared gradient norm of unit embed, chunk \d+/,
  );
});

test("the scaler halves on overflow, grows after enough good steps, and rests for fp32", () => {
  const fp16 = exampleSpec({ exchange: { dtype: "fp16", scaleGrowthSteps: 2 } });
  const start = { scale: 1024, goodSteps: 0 };
  const once = nextScaler(fp16, start, true);
  expect(once).toEqual({ scale: 1024, goodSteps: 1 });
  expect(nextScaler(fp16, once, true)).toEqual({ scale: 2048, goodSteps: 0 });
  expect(nextScaler(fp16, once, false)).toEqual({ scale: 512, goodSteps: 0 });
  const fp32 = { scale: 1, goodSteps: 0 };
  expect(nextScaler(spec, fp32, false)).toEqual(fp32);
  expect(nextScaler(spec, fp32, true)).toEqual(fp32);
});
