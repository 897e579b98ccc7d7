/** A lane makes one batch at a time: on a thread of its own, or in this one. */
import { Worker } from "node:worker_threads";
import { isErrorCode, PaddockError } from "@paddock/contract";
import { type BatchSpec, type CropBuffers, makeRankBatch, type RankBatch } from "../batch.js";
import type { DatasetSource, SharedDataset } from "../datasets/open-dataset.js";

/** What a lane is asked for. */
export interface BatchJob {
  readonly step: number;
  readonly rank: number;
  readonly dataStep: number;
  /** Memory to write the crops to. Absent: new memory. */
  readonly buffers?: CropBuffers | undefined;
}

export interface Lane {
  /** Must not be called again before the promise settles. */
  run(job: BatchJob): Promise<RankBatch>;
  close(): Promise<void>;
}

/** `workerData` of a lane's thread. */
export interface ThreadInput {
  readonly spec: BatchSpec;
  readonly source: DatasetSource;
}

/** What a lane's thread answers to a job. */
export type ThreadAnswer =
  | { readonly kind: "batch"; readonly batch: RankBatch }
  | { readonly kind: "failed"; readonly code: string; readonly message: string };

/** Makes batches on the calling thread: for tests, and for tools that need no overlap. */
export function inProcessLane(spec: BatchSpec, dataset: SharedDataset): Lane {
  return {
    run: ({ step, rank, buffers, dataStep }) =>
      makeRankBatch(dataset, spec, step, rank, buffers, dataStep),
    close: async () => undefined,
  };
}

/** Pixels lie outside the heap; what is young there is a few objects per image. V8's own bound would be 48 MB a thread, after hundreds of steps. */
const resourceLimits = { maxYoungGenerationSizeMb: 6 };

/** Makes batches on a new thread that runs `entry`. A thread that dies fails its job and every later one. */
export function threadLane(entry: URL, input: ThreadInput): Lane {
  const thread = new Worker(entry, { workerData: input, resourceLimits });
  let dead: PaddockError | undefined;
  let settle: { resolve(batch: RankBatch): void; reject(error: Error): void } | undefined;
  const die = (message: string, cause?: unknown): void => {
    dead ??= new PaddockError("run-failed", message, cause === undefined ? {} : { cause });
    settle?.reject(dead);
    settle = undefined;
  };
  thread.on("message", (answer: ThreadAnswer) => {
    if (answer.kind === "batch") settle?.resolve(answer.batch);
    else settle?.reject(errorFrom(answer));
    settle = undefined;
  });
  thread.on("error", (error) =>
    die(`a data thread failed: ${error instanceof Error ? error.message : String(error)}`, error),
  );
  thread.on("exit", (code) => die(`a data thread ended with exit code ${code}`));
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        if (dead) return reject(dead);
        settle = { resolve, reject };
        thread.postMessage(job);
      }),
    close: async () => {
      await thread.terminate();
    },
  };
}

function errorFrom({ code, message }: { code: string; message: string }): PaddockError {
  return new PaddockError(isErrorCode(code) ? code : "internal", message);
}
