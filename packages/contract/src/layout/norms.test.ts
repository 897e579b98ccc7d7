import fc from "fast-check";
import { expect, test } from "vitest";
import { rngOf } from "../rng.js";
import { chunkElements, chunksIn, shardOf } from "../shards.js";
import { parseRunSpec, type RunSpecInput } from "../spec/run.js";
import { type Layout, layoutOf } from "./layout.js";
import { type NormSum, nodesOf, stepNorms } from "./norms.js";

function layout(optimizer: RunSpecInput["optimizer"]): Layout {
  return layoutOf(
    parseRunSpec({
      steps: 10,
      batchPerRank: 2,
      data: { path: "unused" },
      model: { width: 48, depth: 2, heads: 2, patchSize: 8 },
      heads: { dino: { prototypes: 400, bottleneck: 50, hidden: 200, freezeMagnitude: true } },
      crops: { global: { size: 32, scale: [0.3, 1] }, local: { size: 16, scale: [0.1, 0.3] } },
      optimizer,
    }),
  );
}

/** What the chunks [first, end) of a vector sum to: with all bits in use, so that sums are rounded. */
function sumsOf(unit: number, source: string, first: number, end: number): Float64Array {
  return Float64Array.from({ length: end - first }, (_, i) =>
    Math.sqrt(rngOf(unit, source.length, first + i).uniform()),
  );
}

/** What `workers` workers report. */
function report({ units, normGroups }: Layout, workers: number): NormSum[] {
  return Array.from({ length: workers }, (_, worker) =>
    normGroups.flatMap((group) => {
      const unit = units.findIndex(({ name }) => name === group.unit);
      const { start, end } = shardOf(units[unit]?.elements ?? 0, worker, workers);
      const [first, last] = [start / chunkElements, Math.ceil(end / chunkElements)];
      return nodesOf(group, first, sumsOf(unit, group.source, first, last));
    }),
  ).flat();
}

const optimizers = [
  {},
  { clipBy: "tensor" },
  { kind: "lars" },
  { kind: "lars", clipBy: "tensor" },
] as const;

test.each(optimizers)(
  "with %j norms have the same bits for every number of workers",
  (optimizer) => {
    const of = layout(optimizer);
    const alone = stepNorms(of.normGroups, report(of, 1));
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 12 }), (workers) => {
        expect(stepNorms(of.normGroups, report(of, workers))).toEqual(alone);
      }),
    );
    expect(Object.keys(alone.submodules)).toEqual(["backbone", "dino_head"]);
  },
);

test("clipped by submodule, a unit is summed as one", () => {
  const of = layout({});
  const { submodules, all } = stepNorms(of.normGroups, report(of, 3));
  expect(all).toEqual(submodules);
  expect(of.normGroups.map(({ start, end }) => [start, end])).toEqual(
    of.units.map(({ elements }) => [0, chunksIn(elements)]),
  );
  expect(of.units[0]?.parameters.some(({ offset }) => offset % chunkElements !== 0)).toBe(true);
});

test("clipped by tensor, every trained parameter is whole chunks and has a norm, and submodules follow from them", () => {
  const of = layout({ clipBy: "tensor" });
  const { submodules, all } = stepNorms(of.normGroups, report(of, 3));
  const squares: Record<string, number> = {};
  for (const { submodule, parameters } of of.units) {
    for (const { name, offset, trainable } of parameters) {
      expect(offset % chunkElements, name).toBe(0);
      expect(all[name] !== undefined, name).toBe(trainable);
      squares[submodule] = (squares[submodule] ?? 0) + (all[name] ?? 0) ** 2;
    }
  }
  for (const [name, square] of Object.entries(squares)) {
    expect(submodules[name], name).toBeCloseTo(Math.sqrt(square), 10);
  }
});

test("LARS also needs weights and products of what it adapts, which are no vectors", () => {
  const of = layout({ kind: "lars" });
  const { all } = stepNorms(of.normGroups, report(of, 2));
  for (const { name, shape, trainable } of of.units.flatMap(({ parameters }) => parameters)) {
    const adapted = trainable && shape.length > 1;
    expect(all[`weight ${name}`] !== undefined, name).toBe(adapted);
    expect(all[`product ${name}`] !== undefined, name).toBe(adapted);
  }
});

test("a chunk that nobody reports is named", () => {
  const of = layout({ clipBy: "tensor" });
  const nodes = report(of, 2).slice(0, -1);
  expect(() => stepNorms(of.normGroups, nodes)).toThrow(
    /the squared gradient norm of unit dino_head, chunk \d+/,
  );
});
