/**
 * Products of matrices by the library that PADDOCK_PRODUCTS names. Prints which one it is; the largest error as a part of what rounding may
 * do (Higham: K u |A| |B|); and how many results changed their bits with the place of the operands in memory.
 *
 *   node products.mjs <addon> <where the addon reads integers>
 */
import { createRequire } from "node:module";

const [addon, resultInts] = process.argv.slice(2);
const native = createRequire(import.meta.url)(addon);
native.setThreads(1);

/** [M, I, O]: few rows, odd sizes, and both sides of where a library takes over. */
const shapes = [
  [2, 384, 256],
  [5, 192, 576],
  [8, 1100, 130],
  [33, 257, 129],
  [130, 70, 131],
  [197, 384, 384],
];
/** In elements; a multiple of 16 is a cache line. */
const offsets = [0, 1, 5, 8];

function numbers(count, seed) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function shape(...sizes) {
  native.shared.set(sizes, Number(resultInts));
  return sizes.length;
}

/** Borrowed, so that it lies where it is put. */
function place(values, offset, rows, columns) {
  const view = new Float32Array(
    new SharedArrayBuffer(4 * (values.length + 16)),
    4 * offset,
    values.length,
  );
  view.set(values);
  shape(values.length);
  const flat = native.borrow(view, 0, 1);
  const matrix = native.reshape(flat, shape(rows, columns));
  native.free(flat);
  return matrix;
}

/** What is left in memory must not show in a result. */
function leaveNaNs(rows, columns) {
  native.free(native.fill(shape(rows, columns), Number.NaN, 0));
}

/** The largest error of y = op(a) op(b) over its bound, in double precision. */
function errorOf(y, a, b, { M, N, K, atA, atB }) {
  let worst = 0;
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let [sum, size] = [0, 0];
      for (let k = 0; k < K; k++) {
        const term = a[atA(m, k)] * b[atB(k, n)];
        sum += term;
        size += Math.abs(term);
      }
      const error = Math.abs(y[m * N + n] - sum) / (K * 2 ** -24 * size);
      worst = Math.max(worst, error); // NaN stays
    }
  }
  return worst;
}

let [worst, moved] = [0, 0];
for (const [M, I, O] of shapes) {
  const [x, w, dy] = [numbers(M * I, 1), numbers(O * I, 2), numbers(M * O, 3)];
  const results = offsets.map((offset) => {
    const [xs, ws, dys] = [place(x, offset, M, I), place(w, offset, O, I), place(dy, offset, M, O)];
    const multiply = (rows, columns, ...operands) => {
      leaveNaNs(rows, columns);
      const product = native.matmul(...operands);
      const values = new Float32Array(native.read(product, 0)).slice();
      native.free(product);
      return values;
    };
    const all = [
      multiply(M, O, xs, ws, false, true),
      multiply(M, I, dys, ws, false, false),
      multiply(O, I, dys, xs, true, false),
    ];
    for (const handle of [xs, ws, dys]) native.free(handle);
    return all;
  });
  const [y, dx, dw] = results[0];
  const row = (width) => (i, j) => i * width + j;
  const column = (width) => (i, j) => j * width + i;
  worst = Math.max(
    worst,
    errorOf(y, x, w, { M, N: O, K: I, atA: row(I), atB: column(I) }),
    errorOf(dx, dy, w, { M, N: I, K: O, atA: row(O), atB: row(I) }),
    errorOf(dw, dy, x, { M: O, N: I, K: M, atA: column(O), atB: row(I) }),
  );
  for (const other of results.slice(1)) {
    moved += other.filter(
      (values, i) => Buffer.compare(bytes(values), bytes(results[0][i])) !== 0,
    ).length;
  }
}
process.stdout.write(JSON.stringify({ library: native.productLibrary(), worst, moved }));

function bytes(values) {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}
