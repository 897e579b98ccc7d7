/** Where an engine's time goes: wall time by kernel. For engines that compute while they are called, as on CPUs. */
import * as tf from "@tensorflow/tfjs-core";

/** Runs `work` and returns its wall milliseconds by kernel and shape of its (first) output, largest first; "(rest)" is what no kernel took. */
export async function kernelTimes(
  work: () => Promise<unknown> | unknown,
): Promise<readonly (readonly [kernel: string, ms: number, calls: number])[]> {
  const totals = new Map<string, { ms: number; calls: number }>();
  const kernels = tf.getKernelsForBackend(tf.getBackend());
  const originals = kernels.map(({ kernelFunc }) => kernelFunc);
  for (const kernel of kernels) {
    const { kernelName, kernelFunc } = kernel;
    kernel.kernelFunc = (params) => {
      const start = performance.now();
      const result = kernelFunc(params);
      const elapsed = performance.now() - start;
      const key = `${kernelName} [${[result].flat()[0]?.shape}]`;
      const total = totals.get(key) ?? { ms: 0, calls: 0 };
      totals.set(key, { ms: total.ms + elapsed, calls: total.calls + 1 });
      return result;
    };
  }
  const start = performance.now();
  try {
    await work();
  } finally {
    for (const [i, kernel] of kernels.entries()) {
      kernel.kernelFunc = originals[i] as tf.KernelFunc;
    }
  }
  const all = performance.now() - start;
  const rows = [...totals].map(([name, { ms, calls }]) => [name, ms, calls] as const);
  const inKernels = rows.reduce((sum, [, ms]) => sum + ms, 0);
  return [...rows, ["(rest)", all - inKernels, 0] as const].sort((a, b) => b[1] - a[1]);
}
