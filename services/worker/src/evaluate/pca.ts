/** Principal components by power iteration with deflation: enough for three colours of a few thousand patches. */
import type { Rng } from "@paddock/contract";

const iterations = 50;

/**
 * Projections [rows, components] of the centred rows on the leading components.
 * @param rows row-major [n, width]
 */
export function principalComponents(
  rows: Float32Array,
  width: number,
  components: number,
  rng: Rng,
): Float32Array {
  const count = rows.length / width;
  const covariance = covarianceOf(rows, width);
  const mean = meanOf(rows, width);
  const out = new Float32Array(count * components);
  for (let c = 0; c < components; c++) {
    const { vector, value } = leadingEigenvector(covariance, width, rng);
    for (let i = 0; i < count; i++) {
      let dot = 0;
      for (let j = 0; j < width; j++) {
        dot += ((rows[i * width + j] as number) - (mean[j] as number)) * (vector[j] as number);
      }
      out[i * components + c] = dot;
    }
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < width; j++) {
        covariance[i * width + j] =
          (covariance[i * width + j] as number) -
          value * (vector[i] as number) * (vector[j] as number);
      }
    }
  }
  return out;
}

function meanOf(rows: Float32Array, width: number): Float64Array {
  const mean = new Float64Array(width);
  const count = rows.length / width;
  for (let i = 0; i < rows.length; i++) {
    mean[i % width] = (mean[i % width] as number) + (rows[i] as number) / count;
  }
  return mean;
}

function covarianceOf(rows: Float32Array, width: number): Float64Array {
  const mean = meanOf(rows, width);
  const covariance = new Float64Array(width * width);
  for (let start = 0; start < rows.length; start += width) {
    for (let i = 0; i < width; i++) {
      const a = (rows[start + i] as number) - (mean[i] as number);
      for (let j = 0; j < width; j++) {
        covariance[i * width + j] =
          (covariance[i * width + j] as number) +
          a * ((rows[start + j] as number) - (mean[j] as number));
      }
    }
  }
  return covariance;
}

function leadingEigenvector(
  matrix: Float64Array,
  width: number,
  rng: Rng,
): { vector: Float64Array; value: number } {
  let vector = Float64Array.from({ length: width }, () => rng.normal());
  let value = 0;
  for (let k = 0; k < iterations; k++) {
    const next = new Float64Array(width);
    for (let i = 0; i < width; i++) {
      let dot = 0;
      for (let j = 0; j < width; j++)
        dot += (matrix[i * width + j] as number) * (vector[j] as number);
      next[i] = dot;
    }
    value = Math.hypot(...next);
    vector = value > 0 ? next.map((x) => x / value) : next;
  }
  return { vector, value };
}
