/** Where an engine's time goes: wall time by kernel. For engines that compute while they are called, as on CPUs. */
import * as tf from "@tensorflow/tfjs-core";

/** Runs `work` and returns its wall milliseconds by kernel and shape of its (first) output, largest first; "(rest)" is what no kernel took. */
export async function kernelTimes(
  work: () => Promise<unknown> | unknown,
): Promise<readonly (readonly [kernel: string, ms: number, calls: number])[]> {
  const totals = new Map<string, { ms: number; calls: number }>();
  const engine = tf.engine();
  const original = engine.runKernel;
  engine.runKernel = function timed(this: typeof engine, name: string, ...rest) {
    const start = performance.now();
    const result = original.call(this, name, ...rest);
    const elapsed = performance.now() - start;
    const key = `${name} [${[result].flat()[0]?.shape}]`;
    const total = totals.get(key) ?? { ms: 0, calls: 0 };
    totals.set(key, { ms: total.ms + elapsed, calls: total.calls + 1 });
    return result;
  } as typeof original;
  const start = performance.now();
  try {
    await work();
  } finally {
    engine.runKernel = original;
  }
  const all = performance.now() - start;
  const rows = [...totals].map(([name, { ms, calls }]) => [name, ms, calls] as const);
  const inKernels = rows.reduce((sum, [, ms]) => sum + ms, 0);
  return [...rows, ["(rest)", all - inKernels, 0] as const].sort((a, b) => b[1] - a[1]);
}
