/** Environment of a process that computes: libraries read these when they are loaded, not later. */

/** Variables to start a worker's process with, for ops of `threads` threads. */
export function threadEnvironment(threads: number): Record<string, string> {
  const count = String(threads);
  return {
    OMP_NUM_THREADS: count,
    MKL_NUM_THREADS: count,
    OPENBLAS_NUM_THREADS: count,
    // Threads that spin while they wait collapse as soon as a core is shared.
    OMP_WAIT_POLICY: "passive",
    // Matrix products that do not depend on the operands' alignment, at no measurable cost.
    MKL_CBWR: "AUTO,STRICT",
    TF_NUM_INTRAOP_THREADS: count,
    TF_NUM_INTEROP_THREADS: "1",
    // Without it the first process takes all of a GPU's memory.
    TF_FORCE_GPU_ALLOW_GROWTH: "true",
    TF_CPP_MIN_LOG_LEVEL: "1", // warnings and errors
  };
}
