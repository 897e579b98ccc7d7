/** What a welcome brings: the run that a worker serves, with its images and the threads that make batches of them. */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { type BatchPool, openDataset, type SharedDataset, startBatchPool } from "@paddock/data";
import type { Welcome } from "@paddock/proto";
import { failpoint } from "@paddock/service-kit/failpoints";

export interface ServedRun {
  readonly spec: RunSpec;
  readonly welcome: Welcome;
  readonly train: SharedDataset;
  /** The caller closes it. */
  readonly pool: BatchPool;
}

/** @param onBadImage told about each image that is replaced because it cannot be decoded */
export async function serveRun(
  welcome: Welcome,
  onBadImage: (image: { readonly path: string; readonly reason: string }) => void,
): Promise<ServedRun> {
  await failpoint("worker.welcome.received");
  const spec = parseRunSpec(JSON.parse(welcome.specJson));
  const train = await openDataset(spec.data, "train");
  const { threads } = spec.data;
  const pool = await startBatchPool({ spec, threads, dataset: train, onBadImage });
  return { spec, welcome, train, pool };
}
