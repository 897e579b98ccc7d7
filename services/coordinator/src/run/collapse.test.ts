/** The detector against what runs of deploy/runs/fashion-mnist.yaml really showed (torch engine, 2026-11; K = 512, 32 crops per rank). */
import type { CollapseKind, RunSpec, RunSpecInput } from "@paddock/contract";
import fc from "fast-check";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { initialWatch, look, rewound } from "./collapse.js";
import { collapseText } from "./collapse-text.js";

/** step, teacher entropy, KL to uniform, feature std */
type Row = readonly [number, number, number, number];

function specOf(changes: Partial<RunSpecInput> = {}): RunSpec {
  return exampleSpec({
    steps: 2000,
    batchPerRank: 16,
    heads: { dino: { prototypes: 512 } },
    loss: { centering: "softmax" },
    schedules: { learningRate: { warmupSteps: 200 } },
    ...changes,
  });
}

function lookOf([step, teacherEntropy, klToUniform, featureStd]: Row) {
  return { step, monitor: { teacherEntropy, klToUniform, featureStd, effectiveRank: 10 } };
}

/** What is called, and at which step, first. */
function called(spec: RunSpec, rows: readonly Row[]) {
  let watch = initialWatch;
  for (const row of rows) {
    watch = look(watch, spec, lookOf(row));
    if (watch.collapse) return watch.collapse;
  }
  return null;
}

const temperature = (value: number): Partial<RunSpecInput> => ({
  schedules: {
    learningRate: { warmupSteps: 200 },
    teacherTemperature: { start: value, peak: value },
  },
});

const sinkhorn: Partial<RunSpecInput> = { loss: { centering: "sinkhorn" } };

const collapsed: [string, CollapseKind, number, Partial<RunSpecInput>, Row[]][] = [
  [
    "temperature 1",
    "uniform",
    20,
    temperature(1),
    [
      [0, 6.2304, 0.005, 0.4778],
      [10, 6.2346, 0.0007, 0.5277],
      [20, 6.2359, 0.0005, 0.6341],
    ],
  ],
  [
    "temperature 0.3",
    "uniform",
    30,
    temperature(0.3),
    [
      [0, 6.1496, 0.0572, 0.4778],
      [10, 6.1979, 0.008, 0.5296],
      [20, 6.2076, 0.005, 0.6487],
      [30, 6.2052, 0.005, 0.7821],
    ],
  ],
  [
    "no centring",
    "single-prototype",
    40,
    {},
    [
      [0, 1.2155, 3.9763, 0.4778],
      [10, 0.6997, 4.5075, 0.4885],
      [20, 0.4028, 4.9828, 0.4977],
      [30, 0.2032, 5.2591, 0.5939],
      [40, 0.1588, 5.4163, 0.6432],
    ],
  ],
  [
    "no centring, the DINO loss alone",
    "single-prototype",
    40,
    {},
    [
      [0, 1.2155, 3.9763, 0.4778],
      [10, 0.6891, 4.5239, 0.4794],
      [20, 0.3604, 5.0242, 0.4339],
      [30, 0.1883, 5.2138, 0.4695],
      [40, 0.1957, 5.2342, 0.4835],
    ],
  ],
  [
    "a loss that stays at ln K: LayerScale 1e-5, slow teacher, lower learning rate",
    "uniform",
    650,
    sinkhorn,
    [
      [0, 2.6617, 3.5766, 0],
      [100, 4.1413, 2.097, 0.002],
      [200, 5.6603, 0.578, 0.0136],
      [300, 5.994, 0.2443, 0.0419],
      [400, 6.1204, 0.1178, 0.0916],
      [500, 6.1742, 0.064, 0.179],
      [550, 6.1886, 0.0495, 0.2272],
      [600, 6.1985, 0.0396, 0.2945],
      [650, 6.2029, 0.0351, 0.3213],
    ],
  ],
  [
    "features that fell together (made up)",
    "constant-features",
    60,
    sinkhorn,
    [
      [0, 4, 1, 0.5],
      [20, 4, 2, 0.2],
      [40, 4, 2.1, 0.04],
      [50, 4, 2.2, 0.02],
      [60, 4, 2.2, 0.01],
    ],
  ],
  [
    "features that have not begun to differ long after the warm-up (made up)",
    "constant-features",
    400,
    sinkhorn,
    [0, 100, 200, 300, 390, 400, 410].map((step): Row => [step, 2.6, 3.6, 0.0001]),
  ],
];

test.each(collapsed)("%s is called %s", (_, kind, step, changes, rows) => {
  expect(called(specOf(changes), rows)).toEqual({ kind, step });
});

const healthy: [string, Partial<RunSpecInput>, Row[]][] = [
  [
    "the demo",
    sinkhorn,
    [
      [0, 1.2155, 3.9763, 0.4778],
      [10, 2.0991, 2.8452, 0.567],
      [20, 3.2348, 1.7312, 0.7166],
      [40, 3.9272, 1.1091, 0.8796],
      [60, 4.8264, 0.2514, 0.9204],
      [80, 4.8682, 0.1391, 0.9284],
      [100, 4.8411, 0.1516, 0.9163],
    ],
  ],
  [
    "softmax centring, whose centre overshoots at first",
    {},
    [
      [0, 1.2155, 3.9763, 0.4778],
      [5, 1.3339, 3.9953, 0.4273],
      [10, 0.857, 4.4314, 0.495],
      [15, 0.2967, 5.3227, 0.4592],
      [20, 0.1511, 5.4224, 0.5146],
      [25, 0.3468, 5.2031, 0.5905],
      [30, 0.9726, 4.5105, 0.6419],
      [40, 2.3693, 3.0784, 0.7403],
      [60, 1.9927, 3.3566, 0.8417],
    ],
  ],
  [
    "the same with another seed: low for longer",
    {},
    [
      [0, 2.4713, 2.8251, 0.4396],
      [10, 2.432, 2.78, 0.4112],
      [20, 0.6787, 4.666, 0.5384],
      [30, 0.287, 5.2448, 0.6423],
      [40, 0.4154, 5.0896, 0.7441],
      [50, 0.7333, 4.7518, 0.8128],
      [60, 1.7898, 3.6757, 0.807],
    ],
  ],
  [
    "LayerScale 1e-5: all features are the same for 40 steps",
    sinkhorn,
    [
      [0, 1.6605, 4.5779, 0],
      [10, 2.1291, 4.1093, 0],
      [20, 3.2457, 2.9926, 0.0009],
      [30, 4.564, 1.6742, 0.0079],
      [40, 4.4453, 1.7926, 0.0446],
      [50, 4.6732, 1.5628, 0.184],
      [60, 5.4971, 0.7308, 0.4617],
      [80, 5.9461, 0.2264, 0.7609],
      [100, 5.9576, 0.1416, 0.8198],
    ],
  ],
  [
    "a centre that takes away what features have in common before they differ: it began to learn at step 150",
    {},
    [
      [0, 1.66, 4.578, 0],
      [20, 5.688, 0.55, 0.0002],
      [40, 6.162, 0.076, 0.0008],
      [60, 5.956, 0.282, 0.002],
      [80, 6.041, 0.197, 0.005],
      [100, 6.184, 0.054, 0.007],
      [110, 6.217, 0.021, 0.009],
      [120, 6.231, 0.007, 0.01],
      [130, 6.236, 0.002, 0.01],
      [140, 6.238, 0, 0.009],
    ],
  ],
  [
    "entropy on its way back after 20 steps of one prototype (made up)",
    {},
    [
      [10, 0.7, 4.9, 0.5],
      [20, 0.5, 5.0, 0.5],
      [30, 0.287, 5.2448, 0.6423],
      [40, 0.43, 5.0896, 0.7441],
    ],
  ],
  [
    "outputs that begin to differ long after the warm-up, as soft as before (made up)",
    sinkhorn,
    [
      [440, 6.208, 0.026, 0.5],
      [450, 6.208, 0.022, 0.5],
      [460, 6.208, 0.018, 0.5],
      [470, 6.208, 0.014, 0.5],
    ],
  ],
  [
    "a long warm-up from small prototypes: as good as uniform, while the temperature rises (made up)",
    {
      ...sinkhorn,
      schedules: {
        learningRate: { warmupSteps: 1500 },
        teacherTemperature: { start: 0.04, peak: 0.07, warmupSteps: 1000 },
      },
    },
    Array.from({ length: 150 }, (_, i): Row => {
      const sharpness = (0.0002 / (0.04 + 0.03 * Math.min(1, i / 99.9)) ** 2) as number;
      return [i * 10, Math.log(512) - sharpness, sharpness, 0];
    }),
  ],
];

test.each(healthy)("%s is healthy", (_, changes, rows) => {
  expect(called(specOf(changes), rows)).toBeNull();
});

test("a run is called once, until it is well above the level that called it", () => {
  const spec = specOf(temperature(0.3));
  const rows: Row[] = [
    [0, 6.15, 0.05, 0.5],
    [10, 6.2, 0.005, 0.5],
    [20, 6.21, 0.005, 0.5],
    [30, 6.21, 0.005, 0.5],
    [40, 6.17, 0.005, 0.5], // above the level of 0.05, below twice as much
    [50, 6.21, 0.005, 0.5],
    [60, 6.0, 0.005, 0.5],
  ];
  let watch = initialWatch;
  const states = rows.map((row) => {
    watch = look(watch, spec, lookOf(row));
    return watch.collapse?.step;
  });
  expect(states).toEqual([undefined, undefined, undefined, 30, 30, 30, undefined]);
});

test("steps that are computed again are looked at as if for the first time", () => {
  const spec = specOf(temperature(1));
  const rows = collapsed[0]?.[4] ?? [];
  const whole = rows.reduce((watch, row) => look(watch, spec, lookOf(row)), initialWatch);
  expect(whole.collapse).toEqual({ kind: "uniform", step: 20 });
  const back = rewound(whole, 15);
  expect(back.collapse).toBeNull();
  expect(back.looks.map(({ step }) => step)).toEqual([0, 10]);
  expect(look(back, spec, lookOf(rows[2] as Row))).toEqual(whole);
});

test("values that are not finite say nothing, and nothing breaks on odd ones", () => {
  const spec = specOf();
  const before = look(initialWatch, spec, lookOf([0, 1, 1, 1]));
  expect(look(before, spec, lookOf([10, Number.NaN, 1, 1]))).toBe(before);
  const values = fc.double({ noNaN: true, min: -1, max: 10 });
  fc.assert(
    fc.property(fc.array(fc.tuple(values, values, values)), (rows) => {
      let watch = initialWatch;
      for (const [i, row] of rows.entries()) {
        watch = look(watch, spec, lookOf([i * 7, ...row]));
        expect(watch.looks.length).toBeLessThanOrEqual(4);
      }
    }),
  );
});

test("the text names the collapse, its numbers, ln K, and what to change in this spec", () => {
  const uniform = collapseText(
    specOf(temperature(1)),
    "uniform",
    lookOf([40, 6.2369, 0.0002, 0.8]),
  );
  expect(uniform).toMatch(/^uniform collapse/);
  expect(uniform).toContain("entropy 6.237");
  expect(uniform).toContain("ln K = 6.238 (K = 512)");
  expect(uniform).toContain("schedules.teacherTemperature at most 0.07 (now 1, peak 1)");
  const single = collapseText(
    specOf({ loss: { centering: "softmax", centerMomentum: 0.99999 } }),
    "single-prototype",
    lookOf([40, 0.1, 5.5, 0.6]),
  );
  expect(single).toContain("loss.centerMomentum 0.9 (now 0.99999");
  expect(single).toContain("loss.centering sinkhorn");
  const constant = collapseText(
    specOf({ loss: { koleo: 0 } }),
    "constant-features",
    lookOf([40, 4, 1, 0.01]),
  );
  expect(constant).toContain("loss.koleo 0.1 (now 0)");
  expect(constant).not.toContain("centering");
});
