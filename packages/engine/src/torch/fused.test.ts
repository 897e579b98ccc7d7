/** Every fused kernel and its gradient against the formula in double precision, and finite differences. */
import * as tf from "@tensorflow/tfjs-core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { gradientOf, normals, relativeError, type Values } from "../testing/numbers.js";
import { skipReason, torchForTests } from "../testing/torch.js";

// float32 rounding of sums of some dozen terms; measured 1e-7 to 1e-6.
const noise = 1e-5;

await torchForTests();

type Shaped = readonly [Values, ...number[]];

function tensorOf([values, ...shape]: Shaped): tf.Tensor {
  return tf.tensor(Float32Array.from(values), shape);
}

function run(name: string, inputs: Record<string, tf.Tensor>, attrs: object = {}): tf.Tensor[] {
  const outputs: tf.Tensor | tf.Tensor[] = tf.engine().runKernel(name, inputs, { ...attrs });
  return Array.isArray(outputs) ? outputs : [outputs];
}

function expectClose(actual: tf.Tensor | undefined, expected: Values, name: string) {
  expect(actual, name).toBeDefined();
  if (actual === undefined) return;
  expect(relativeError(actual.dataSync(), expected), name).toBeLessThan(noise);
}

const at = (values: Values, i: number) => values[i] ?? Number.NaN;
const dot = (n: number, f: (i: number) => number) => {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += f(i);
  return sum;
};
const filled = (n: number, f: (i: number) => number) =>
  Float64Array.from({ length: n }, (_, i) => f(i));

describe.skipIf(skipReason)(`fused kernels ${skipReason ?? ""}`, () => {
  let before = 0;
  beforeEach(() => {
    before = tf.memory().numTensors;
    tf.engine().startScope();
  });
  afterEach(() => {
    tf.engine().endScope();
    expect(tf.memory().numTensors).toBe(before);
  });

  test("linear is x times w transposed plus bias, and its gradients are exact", () => {
    const [M, I, O] = [5, 7, 3];
    const [x, w, bias, dy] = [
      normals(M * I, 1),
      normals(O * I, 2),
      normals(O, 3),
      normals(M * O, 4),
    ];
    const f = ([x, w, b]: readonly Values[]) =>
      filled(M * O, (n) => {
        const [m, o] = [Math.floor(n / O), n % O];
        return (
          at(b as Values, o) +
          dot(I, (i) => at(x as Values, m * I + i) * at(w as Values, o * I + i))
        );
      });
    const inputs = { x: tensorOf([x, M, I]), w: tensorOf([w, O, I]) };
    const [y] = run("PaddockLinear", { ...inputs, bias: tensorOf([bias, O]) });
    expectClose(y, f([x, w, bias]), "y");
    const [plain] = run("PaddockLinear", inputs);
    expectClose(plain, f([x, w, new Float64Array(O)]), "y without bias");
    const upstream = { ...inputs, dy: tensorOf([dy, M, O]) };
    const all = run("PaddockLinearBackward", upstream, { needDx: true, hasBias: true });
    const wanted = [1, 2, 0].map((which) => gradientOf(f, [x, w, bias], dy, which));
    for (const [i, name] of ["dw", "db", "dx"].entries())
      expectClose(all[i], wanted[i] as Values, name);
    const one = run("PaddockLinearBackward", upstream, { needDx: false, hasBias: false });
    expect(one.map((t) => t.shape)).toEqual([[O, I]]);
  });

  test("gelu is the exact one", () => {
    const x = filled(41, (i) => (i - 20) / 4);
    const erf = (z: number) => (2 / Math.sqrt(Math.PI)) * simpson((t) => Math.exp(-t * t), z);
    const f = ([x]: readonly Values[]) =>
      (x as Values).map((v) => 0.5 * v * (1 + erf(v / Math.SQRT2))) as Values;
    const dy = normals(41, 5);
    expectClose(run("PaddockGelu", { x: tensorOf([x, 41]) })[0], f([x]), "y");
    const [dx] = run("PaddockGeluBackward", { dy: tensorOf([dy, 41]), x: tensorOf([x, 41]) });
    expectClose(dx, gradientOf(f, [x], dy, 0), "dx");
  });

  test("layer norm returns y, mean and reciprocal deviation, and its gradients are exact", () => {
    const [M, C, eps] = [4, 9, 1e-6];
    const [x, gamma, beta, dy] = [1, 2, 3, 4].map((seed, i) =>
      normals(i === 1 || i === 2 ? C : M * C, seed),
    );
    const inputs = [x, gamma, beta] as Values[];
    const mean = (x: Values, m: number) => dot(C, (c) => at(x, m * C + c)) / C;
    const rstd = (x: Values, m: number) =>
      1 / Math.sqrt(dot(C, (c) => (at(x, m * C + c) - mean(x, m)) ** 2) / C + eps);
    const f = ([x, g, b]: readonly Values[]) =>
      filled(M * C, (n) => {
        const [m, c] = [Math.floor(n / C), n % C];
        const unit = (at(x as Values, n) - mean(x as Values, m)) * rstd(x as Values, m);
        return unit * at(g as Values, c) + at(b as Values, c);
      });
    const tensors = {
      x: tensorOf([x as Values, M, C]),
      gamma: tensorOf([gamma as Values, C]),
      beta: tensorOf([beta as Values, C]),
    };
    const [y, mu, sigma] = run("PaddockLayerNorm", tensors, { eps });
    expectClose(y, f(inputs), "y");
    expectClose(
      mu,
      filled(M, (m) => mean(x as Values, m)),
      "mean",
    );
    expectClose(
      sigma,
      filled(M, (m) => rstd(x as Values, m)),
      "rstd",
    );
    const grads = run("PaddockLayerNormBackward", {
      dy: tensorOf([dy as Values, M, C]),
      x: tensors.x,
      gamma: tensors.gamma,
      mean: mu as tf.Tensor,
      rstd: sigma as tf.Tensor,
    });
    for (const [i, name] of ["dx", "dgamma", "dbeta"].entries()) {
      expectClose(grads[i], gradientOf(f, inputs, dy as Values, i), name);
    }
  });

  test("attention stays inside each sequence of each group, and its gradient is exact", () => {
    const [H, D] = [2, 3];
    const C = H * D;
    const groups = [
      { count: 2, length: 3 },
      { count: 1, length: 5 },
    ];
    const T = 11;
    const starts = [0, 0, 0, 3, 3, 3, 6, 6, 6, 6, 6];
    const lengths = [3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5];
    const f = ([qkv]: readonly Values[]) =>
      filled(T * C, (n) => {
        const [t, c] = [Math.floor(n / C), n % C];
        const head = Math.floor(c / D);
        const [start, length] = [starts[t] as number, lengths[t] as number];
        const part = (row: number, which: number, d: number) =>
          at(qkv as Values, row * 3 * C + which * C + head * D + d);
        const weights = filled(length, (j) =>
          Math.exp(dot(D, (d) => part(t, 0, d) * part(start + j, 1, d)) / Math.sqrt(D)),
        );
        const total = weights.reduce((a, b) => a + b);
        return dot(length, (j) => at(weights, j) * part(start + j, 2, c % D)) / total;
      });
    const [qkv, dy] = [normals(T * 3 * C, 7), normals(T * C, 8)];
    const input = tensorOf([qkv, T, 3 * C]);
    const [out, lse] = run("PaddockAttention", { qkv: input }, { numHeads: H, groups });
    expectClose(out, f([qkv]), "out");
    expect(lse?.shape.length).toBe(1);
    const saved = { qkv: input, out: out as tf.Tensor, lse: lse as tf.Tensor };
    const [dqkv] = run(
      "PaddockAttentionBackward",
      { dy: tensorOf([dy, T, C]), ...saved },
      { numHeads: H, groups },
    );
    expectClose(dqkv, gradientOf(f, [qkv], dy, 0), "dqkv");
  });

  test("attention within a short sequence is the same to the last bit in any company, and not a number stays in its sequence", () => {
    const [H, D] = [2, 16];
    const C = H * D;
    const rows = (count: number, length: number, seed: number) =>
      Float32Array.from(normals(count * length * C, seed));
    const both = (qkv: Float32Array, dy: Float32Array, groups: readonly object[]) => {
      const T = dy.length / C;
      const input = tf.tensor2d(qkv, [T, 3 * C]);
      const [out, lse] = run("PaddockAttention", { qkv: input }, { numHeads: H, groups });
      const saved = { qkv: input, out: out as tf.Tensor, lse: lse as tf.Tensor };
      const upstream = { dy: tf.tensor2d(dy, [T, C]), ...saved };
      const [dqkv] = run("PaddockAttentionBackward", upstream, { numHeads: H, groups });
      return [out, dqkv].map((x) => (x as tf.Tensor).dataSync() as Float32Array);
    };
    const [qkv, dy] = [rows(3, 3 * 11, 21), rows(3, 11, 22)];
    const [others, dothers] = [rows(4, 3 * 5, 23), rows(4, 5, 24)];
    const joined = (a: Float32Array, b: Float32Array) => Float32Array.from([...a, ...b]);
    const [out, dqkv] = both(joined(others, qkv), joined(dothers, dy), [
      { count: 4, length: 5 },
      { count: 3, length: 11 },
    ]);
    for (let sequence = 0; sequence < 3; sequence++) {
      const part = (x: Float32Array, width: number) =>
        x.slice(sequence * 11 * width, (sequence + 1) * 11 * width);
      const alone = both(part(qkv, 3 * C), part(dy, C), [{ count: 1, length: 11 }]);
      expect(part((out as Float32Array).slice(20 * C), C)).toEqual(alone[0]);
      expect(part((dqkv as Float32Array).slice(20 * 3 * C), 3 * C)).toEqual(alone[1]);
    }
    const spoilt = qkv.with(11 * 3 * C + 5, Number.NaN); // the second sequence's first query
    const [bad, dbad] = both(spoilt, dy, [{ count: 3, length: 11 }]);
    const isBad = (x: Float32Array, width: number, sequence: number) =>
      x.slice(sequence * 11 * width, (sequence + 1) * 11 * width).some(Number.isNaN);
    for (const [x, width] of [
      [bad, C],
      [dbad, 3 * C],
    ] as const) {
      const found = [0, 1, 2].map((sequence) => isBad(x as Float32Array, width, sequence));
      expect(found).toEqual([false, true, false]);
    }
  });

  test("GELU and its slope at both ends, and not a number stays one", () => {
    const x = Float64Array.of(-30, -6, 6, 30, Number.NaN);
    const input = tensorOf([x, x.length]);
    const ones = tf.ones([x.length]);
    const y = (run("PaddockGelu", { x: input })[0] as tf.Tensor).dataSync();
    const dx = (run("PaddockGeluBackward", { dy: ones, x: input })[0] as tf.Tensor).dataSync();
    expect([...y.map(Math.abs)]).toEqual([0, 0, 6, 30, Number.NaN]);
    expect(dx[0]).toBeCloseTo(0, 8);
    expect([...dx.slice(2)].map((slope) => Math.round(slope * 1e6) / 1e6)).toEqual([
      1,
      1,
      Number.NaN,
    ]);
  });

  test("swiglu gates the second half with the first, and its gradient is exact", () => {
    const [M, H] = [3, 5];
    const f = ([x]: readonly Values[]) =>
      filled(M * H, (n) => {
        const [m, h] = [Math.floor(n / H), n % H];
        const gate = at(x as Values, m * 2 * H + h);
        return (gate / (1 + Math.exp(-gate))) * at(x as Values, m * 2 * H + H + h);
      });
    const [x, dy] = [normals(M * 2 * H, 9), normals(M * H, 10)];
    expectClose(run("PaddockSwiglu", { x: tensorOf([x, M, 2 * H]) })[0], f([x]), "y");
    const [dx] = run("PaddockSwigluBackward", {
      dy: tensorOf([dy, M, H]),
      x: tensorOf([x, M, 2 * H]),
    });
    expectClose(dx, gradientOf(f, [x], dy, 0), "dx");
  });

  for (const [name, withGamma, withRows, withScale] of [
    ["all rows, plain", false, false, false],
    ["all rows with gamma", true, false, false],
    ["listed rows with gamma and scale", true, true, true],
    ["listed rows without gamma", false, true, true],
  ] as const) {
    test(`scaled add: ${name}`, () => {
      const [T, C, S] = [150, 4, withRows ? 140 : 150]; // more than two partial sums of 64 rows
      const row = (s: number) => (withRows ? (s * 7) % T : s);
      const [x, r, gamma, scale, dy] = [T * C, S * C, C, S, T * C].map((n, i) =>
        normals(n, 11 + i),
      );
      const factor = (gamma: Values, s: number, c: number) =>
        (withScale ? at(scale as Values, s) : 1) * (withGamma ? at(gamma, c) : 1);
      const f = ([x, r, g]: readonly Values[]) => {
        const y = (x as Values).slice();
        for (let i = 0; i < S * C; i++) {
          const [s, c] = [Math.floor(i / C), i % C];
          const index = row(s) * C + c;
          y[index] = at(y, index) + factor(g as Values, s, c) * at(r as Values, i);
        }
        return y;
      };
      const options = {
        ...(withGamma && { gamma: tensorOf([gamma as Values, C]) }),
        ...(withRows && {
          rows: tf.tensor1d(
            Array.from({ length: S }, (_, s) => row(s)),
            "int32",
          ),
        }),
        ...(withScale && { rowScale: tensorOf([scale as Values, S]) }),
      };
      const inputs = [x, r, gamma] as Values[];
      const branch = tensorOf([r as Values, S, C]);
      const [y] = run("PaddockScaledAdd", {
        x: tensorOf([x as Values, T, C]),
        r: branch,
        ...options,
      });
      expectClose(y, f(inputs), "y");
      const grads = run("PaddockScaledAddBackward", {
        dy: tensorOf([dy as Values, T, C]),
        r: branch,
        ...options,
      });
      expect(grads.length).toBe(withGamma ? 2 : 1);
      expectClose(grads[0], gradientOf(f, inputs, dy as Values, 1), "dr");
      if (withGamma) expectClose(grads[1], gradientOf(f, inputs, dy as Values, 2), "dgamma");
    });
  }

  test("rows are gathered, and scattered sums repeat in order", () => {
    const x = tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]);
    const rows = tf.tensor1d([2, 0, 2], "int32");
    const [gathered] = run("PaddockGatherRows", { x, rows });
    expect(gathered?.arraySync()).toEqual([
      [5, 6],
      [1, 2],
      [5, 6],
    ]);
    const r = tf.tensor2d([10, 20, 30, 40, 50, 60], [3, 2]);
    const [sum] = run("PaddockScatterAddRows", { x, r, rows });
    expect(sum?.arraySync()).toEqual([
      [31, 42],
      [3, 4],
      [65, 86],
    ]);
  });

  test("rows are normalised to length one, and the gradient is exact", () => {
    const [M, C, eps] = [4, 6, 1e-12];
    const length = (x: Values, m: number) => Math.hypot(...x.subarray(m * C, (m + 1) * C));
    const f = ([x]: readonly Values[]) =>
      filled(M * C, (n) => at(x as Values, n) / length(x as Values, Math.floor(n / C)));
    const [x, dy] = [normals(M * C, 21), normals(M * C, 22)];
    const [y, norm] = run("PaddockL2Normalize", { x: tensorOf([x, M, C]) }, { eps });
    expectClose(y, f([x]), "y");
    expectClose(
      norm,
      filled(M, (m) => length(x, m)),
      "norm",
    );
    const [dx] = run("PaddockL2NormalizeBackward", {
      dy: tensorOf([dy, M, C]),
      y: y as tf.Tensor,
      norm: norm as tf.Tensor,
    });
    expectClose(dx, gradientOf(f, [x], dy, 0), "dx");
    const zero = run("PaddockL2Normalize", { x: tf.zeros([1, C]) }, { eps: 1e-3 });
    expect(zero[1]?.arraySync()).toEqual([Math.fround(1e-3)]);
  });

  for (const K of [5, 37, 2500]) {
    test(`cross-entropy over ${K} prototypes returns each row's loss and the exact gradient`, () => {
      const [N, M, temperature] = [4, 2, 0.1];
      const index = [1, 0, 1, 1];
      const logits = normals(N * K, 31);
      const [target, weight] = [normals(M * K, 32).map(Math.abs) as Values, normals(N, 33)];
      const logP = (n: number) => {
        const z = logits.subarray(n * K, (n + 1) * K).map((v) => v / temperature) as Values;
        const peak = z.reduce((a, b) => Math.max(a, b));
        const lse = peak + Math.log(dot(K, (k) => Math.exp(at(z, k) - peak)));
        return z.map((v) => v - lse) as Values;
      };
      const goal = (n: number, k: number) => at(target, (index[n] as number) * K + k);
      const [rows, dlogits] = run(
        "PaddockCrossEntropy",
        {
          logits: tensorOf([logits, N, K]),
          target: tensorOf([target, M, K]),
          index: tf.tensor1d(index, "int32"),
          weight: tensorOf([weight, N]),
        },
        { temperature },
      );
      const losses = new Float64Array(N);
      const exact = new Float64Array(N * K);
      for (let n = 0; n < N; n++) {
        const log = logP(n);
        const share = dot(K, (k) => goal(n, k));
        losses[n] = -at(weight, n) * dot(K, (k) => goal(n, k) * at(log, k));
        for (let k = 0; k < K; k++) {
          const slope = Math.exp(at(log, k)) * share - goal(n, k);
          exact[n * K + k] = (at(weight, n) / temperature) * slope;
        }
      }
      expectClose(rows, losses, "rows");
      expectClose(dlogits, exact, "dlogits");
    });
  }

  test("wrong shapes and rows are JavaScript errors that name op, shapes and dtypes", () => {
    const x = tf.ones([2, 3]);
    expect(() => run("PaddockLinear", { x, w: tf.ones([4, 5]) })).toThrow(
      /linear: .*float32 \[2,3\], float32 \[4,5\]/s,
    );
    const rows = tf.tensor1d([0, 2], "int32");
    expect(() => run("PaddockGatherRows", { x, rows })).toThrow(/gatherRows: .*row 2 of 2/s);
    const groups = [{ count: 1, length: 3 }];
    expect(() => run("PaddockAttention", { qkv: x }, { numHeads: 1, groups })).toThrow(
      /attention: .*groups cover 3 rows of 2/s,
    );
  });
});

/** Integral of f from 0 to z. */
function simpson(f: (t: number) => number, z: number): number {
  const n = 400;
  const h = z / n;
  return (h / 3) * dot(n + 1, (i) => f(i * h) * (i === 0 || i === n ? 1 : i % 2 === 1 ? 4 : 2));
}
