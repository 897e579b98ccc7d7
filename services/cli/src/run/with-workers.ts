import { PaddockError, type RunSpec } from "@paddock/contract";

/** The spec with another number of workers, if one is given. Errors: `invalid-argument` for more than there are logical ranks. */
export function withWorkers(spec: RunSpec, workers: number | undefined): RunSpec {
  if (workers === undefined) return spec;
  if (workers > spec.logicalRanks) {
    throw new PaddockError(
      "invalid-argument",
      `expected at most logicalRanks = ${spec.logicalRanks} workers, received ${workers}`,
    );
  }
  return { ...spec, fleet: { ...spec.fleet, workers } };
}
