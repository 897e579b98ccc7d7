/** How far features spread over their space: host code in doubles, for a few rows. Shapes: n rows, D dimensions, m = min(n, D). */

export interface Spread {
  /**
   * Standard deviation of a dimension of the L2-normalised rows, mean over dimensions, times sqrt(D): 0 for equal rows, 1 for directions
   * drawn evenly from the sphere.
   */
  readonly featureStd: number;
  /** exp of the entropy of the normalised singular values of the L2-normalised rows (RankMe, arXiv 2210.02885): from 1 to m. */
  readonly effectiveRank: number;
}

/** @param values [n,D]; a row of zeros stays one */
export function spreadOf(values: ArrayLike<number>, rows: number): Spread {
  const unit = unitRows(values, rows);
  return { featureStd: meanStd(unit), effectiveRank: effectiveRank(unit) };
}

/**
 * Eigenvalues of a symmetric matrix, in no order, by cyclic Jacobi rotations. About 4 m^3 operations a sweep, some 8 sweeps for m = 64.
 * @param matrix [m,m] by rows; destroyed
 */
export function symmetricEigenvalues(matrix: readonly Float64Array[]): number[] {
  const size = matrix.length;
  const total = matrix.reduce((sum, row) => row.reduce((s, value) => s + value * value, sum), 0);
  const maxSweeps = 30;
  for (let sweep = 0; sweep < maxSweeps && offDiagonal(matrix) > 1e-26 * total; sweep++) {
    for (let p = 0; p < size - 1; p++) {
      for (let q = p + 1; q < size; q++) rotate(matrix, p, q);
    }
  }
  return matrix.map((row, i) => row[i] as number);
}

function unitRows(values: ArrayLike<number>, rows: number): Float64Array[] {
  const width = values.length / rows;
  return Array.from({ length: rows }, (_, i) => {
    const row = Float64Array.from({ length: width }, (_, d) => values[i * width + d] as number);
    const norm = Math.sqrt(dot(row, row));
    return norm > 0 ? row.map((value) => value / norm) : row;
  });
}

function meanStd(rows: readonly Float64Array[]): number {
  const width = rows[0]?.length ?? 0;
  let sum = 0;
  for (let d = 0; d < width; d++) {
    const mean = rows.reduce((total, row) => total + (row[d] as number), 0) / rows.length;
    const variance = rows.reduce((total, row) => total + ((row[d] as number) - mean) ** 2, 0);
    sum += Math.sqrt(variance / rows.length);
  }
  return (sum / width) * Math.sqrt(width);
}

function effectiveRank(rows: readonly Float64Array[]): number {
  const width = rows[0]?.length ?? 0;
  const vectors =
    rows.length <= width
      ? rows
      : Array.from({ length: width }, (_, d) => Float64Array.from(rows, (row) => row[d] as number));
  const gram = vectors.map((a) => Float64Array.from(vectors, (b) => dot(a, b)));
  const singular = symmetricEigenvalues(gram).map((value) => Math.sqrt(Math.max(0, value)));
  const sum = singular.reduce((a, b) => a + b, 0);
  const entropy = singular.reduce((total, value) => {
    const p = value / sum;
    return p > 0 ? total - p * Math.log(p) : total;
  }, 0);
  return Math.exp(entropy);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

/** Sum of squares beside the diagonal; NaN counts as none, so that a broken matrix ends the sweeps. */
function offDiagonal(matrix: readonly Float64Array[]): number {
  let sum = 0;
  for (const [i, row] of matrix.entries()) {
    for (let j = 0; j < i; j++) sum += 2 * (row[j] as number) ** 2;
  }
  return sum;
}

/** Zeroes the entry (p, q) by a rotation of rows and columns p and q. Hot: n^2 calls a sweep. */
function rotate(matrix: readonly Float64Array[], p: number, q: number): void {
  const rowP = matrix[p] as Float64Array;
  const rowQ = matrix[q] as Float64Array;
  const apq = rowP[q] as number;
  if (apq === 0) return;
  const theta = ((rowQ[q] as number) - (rowP[p] as number)) / (2 * apq);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (const row of matrix) {
    const [a, b] = [row[p] as number, row[q] as number];
    row[p] = c * a - s * b;
    row[q] = s * a + c * b;
  }
  for (let i = 0; i < rowP.length; i++) {
    const [a, b] = [rowP[i] as number, rowQ[i] as number];
    rowP[i] = c * a - s * b;
    rowQ[i] = s * a + c * b;
  }
}
