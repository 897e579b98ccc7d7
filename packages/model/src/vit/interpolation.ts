/**
 * Interpolation of a grid of patches (position encoding, gram teacher) as a matrix: target patches = M base patches. Reproduces
 * PyTorch's `interpolate(align_corners=False)`, bicubic and bilinear, with and without antialias, with a scale factor or an exact size.
 */

export interface Grid {
  readonly height: number;
  readonly width: number;
}

export interface InterpolationOptions {
  /** Added to the target size in the scale factor (official: 0.1); 0 means exact size. Shifts the sampling points a little. */
  readonly offset: number;
  readonly antialias: boolean;
  /** bicubic by default. */
  readonly method?: "bicubic" | "bilinear";
}

/** M as rows [target.height * target.width][side * side], or undefined where the official code returns the encoding as it is. */
export function interpolationMatrix(
  side: number,
  target: Grid,
  options: InterpolationOptions,
): Float32Array | undefined {
  if (target.height === side && target.width === side) return undefined;
  const vertical = axisWeights(side, target.height, options);
  const horizontal = axisWeights(side, target.width, options);
  const base = side * side;
  const matrix = new Float32Array(target.height * target.width * base);
  for (let y = 0; y < target.height; y++) {
    for (let x = 0; x < target.width; x++) {
      const row = (y * target.width + x) * base;
      for (let i = 0; i < side; i++) {
        for (let j = 0; j < side; j++) {
          matrix[row + i * side + j] =
            (vertical[y * side + i] as number) * (horizontal[x * side + j] as number);
        }
      }
    }
  }
  return matrix;
}

/** Weights [target][side] of one axis. */
function axisWeights(
  side: number,
  target: number,
  { offset, antialias, method = "bicubic" }: InterpolationOptions,
): Float64Array {
  // PyTorch maps coordinates by the scale factor it was given, not by the ratio of sizes.
  const scale = offset > 0 ? side / (target + offset) : side / target;
  const fill = antialias ? fillAntialiased : fillers[method];
  const weights = new Float64Array(target * side);
  for (let i = 0; i < target; i++) {
    fill(weights.subarray(i * side, (i + 1) * side), scale, i, method);
  }
  return weights;
}

const fillers = { bicubic: fillCubic, bilinear: fillLinear };

/** Four taps, clamped to the border; the kernel's a is -0.75. */
function fillCubic(row: Float64Array, scale: number, index: number): void {
  const source = scale * (index + 0.5) - 0.5;
  const first = Math.floor(source) - 1;
  for (let tap = 0; tap < 4; tap++) {
    const at = Math.min(Math.max(first + tap, 0), row.length - 1);
    row[at] = (row[at] as number) + cubic(source - (first + tap), -0.75);
  }
}

/** Two taps; the source position is clamped to the first one, the second tap to the border. */
function fillLinear(row: Float64Array, scale: number, index: number): void {
  const source = Math.max(scale * (index + 0.5) - 0.5, 0);
  const first = Math.min(Math.floor(source), row.length - 1);
  const second = Math.min(first + 1, row.length - 1);
  const share = source - first;
  row[first] = (row[first] as number) + 1 - share;
  row[second] = (row[second] as number) + share;
}

/** Half widths and kernels with antialias; the cubic's a is -0.5 (as Pillow). */
const kernels = {
  bicubic: { radius: 2, weight: (distance: number) => cubic(distance, -0.5) },
  bilinear: { radius: 1, weight: (distance: number) => Math.max(0, 1 - Math.abs(distance)) },
};

/** A kernel as wide as the reduction, cut at the border and normalised. */
function fillAntialiased(
  row: Float64Array,
  scale: number,
  index: number,
  method: keyof typeof kernels,
): void {
  const { radius, weight: weightAt } = kernels[method];
  const stretch = Math.max(scale, 1);
  const support = radius * stretch;
  const centre = scale * (index + 0.5);
  const start = Math.max(Math.trunc(centre - support + 0.5), 0);
  const end = Math.min(Math.trunc(centre + support + 0.5), row.length);
  let total = 0;
  for (let at = start; at < end; at++) {
    const weight = weightAt((at - centre + 0.5) / stretch);
    row[at] = weight;
    total += weight;
  }
  for (let at = start; at < end; at++) row[at] = (row[at] as number) / total;
}

/** Keys' cubic convolution kernel. */
function cubic(distance: number, a: number): number {
  const x = Math.abs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}
