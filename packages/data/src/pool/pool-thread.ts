/** Entry of a data thread: answers each job with a batch, or with why there is none. */
import { parentPort, workerData } from "node:worker_threads";
import { invariant, PaddockError } from "@paddock/contract";
import { makeRankBatch } from "../batch.js";
import { datasetFrom } from "../datasets/open-dataset.js";
import type { BatchJob, ThreadAnswer, ThreadInput } from "./lane.js";

const port = parentPort;
invariant(port, "pool-thread is the entry of a worker thread");
const { spec, source } = workerData as ThreadInput;
const dataset = datasetFrom(source);

port.on("message", async (job: BatchJob) => {
  port.postMessage(await answer(job));
});

async function answer({ step, rank, buffers, dataStep }: BatchJob): Promise<ThreadAnswer> {
  try {
    const batch = await makeRankBatch(dataset, spec, step, rank, buffers, dataStep);
    return { kind: "batch", batch };
  } catch (thrown) {
    const { code, message } = PaddockError.from(thrown);
    return { kind: "failed", code, message };
  }
}
