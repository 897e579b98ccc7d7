/**
 * Makes batches ahead of time, off the main thread. A request is answered from what was prefetched for it; whatever is left of the
 * pool's capacity works on the following steps of the same ranks. Batches are pure functions of (step, rank) and of what data is left out, so a wrong guess (the
 * ranks changed, a step was repeated) costs time and changes nothing.
 */
import { type DataWindow, dataStepOf, PaddockError, type RunSpec } from "@paddock/contract";
import type { BadImage, CropBuffers, RankBatch } from "../batch.js";
import { openDataset, type SharedDataset } from "../datasets/open-dataset.js";
import { BatchEntry, nextQueued } from "./entry.js";
import { inProcessLane, type Lane, threadLane } from "./lane.js";

export interface BatchPoolOptions {
  readonly spec: RunSpec;
  /** Data threads, at least 1. */
  readonly threads: number;
  /** Training images, if the caller has opened them already. */
  readonly dataset?: SharedDataset;
  /** Steps made ahead of the one requested last; 0 turns prefetching off. Memory: (prefetchSteps + 1) batches per rank. Default 2. */
  readonly prefetchSteps?: number;
  /** Called once per bad image. */
  readonly onBadImage?: (image: BadImage) => void;
  /** Make batches on the calling thread: for tests that run from sources. Default false. */
  readonly inProcess?: boolean;
}

export interface BatchPoolStats {
  /** Batches made, prefetched ones included. */
  readonly batches: number;
  /** Images in them. */
  readonly images: number;
  /** Different images that could not be used. */
  readonly badImages: number;
  /** Batches asked for that were not ready; a growing share means that data is the bottleneck. */
  readonly waits: number;
  /** Batches made or being made that nobody has asked for yet. */
  readonly prefetched: number;
}

export interface BatchPool {
  /** The batches of `ranks` at `step`, in that order. Rejects if one cannot be made, or the pool is closed. */
  request(step: number, ranks: readonly number[]): Promise<RankBatch[]>;
  /** Data that no step uses from now on, in place of what was said before. At first: none. What was prefetched by other windows is dropped. */
  leaveOut(windows: readonly DataWindow[]): void;
  /**
   * Gives the memory of batches back, to be overwritten by later ones: never read them again. Without it memory grows until V8 happens
   * to collect it, which can be gigabytes late.
   */
  release(batches: readonly RankBatch[]): void;
  stats(): BatchPoolStats;
  /** Ends the threads; open requests reject. */
  close(): Promise<void>;
}

/** Opens the training images (unless given) and starts the threads. The caller closes the pool. */
export async function startBatchPool(options: BatchPoolOptions): Promise<BatchPool> {
  const { spec } = options;
  const dataset = options.dataset ?? (await openDataset(spec.data, "train"));
  const makeLane = (): Lane =>
    options.inProcess === true
      ? inProcessLane(spec, dataset)
      : threadLane(new URL("./pool-thread.js", import.meta.url), { spec, source: dataset.source });
  const lanes = Array.from({ length: options.threads }, makeLane);
  return poolOf(lanes, spec.steps, options.prefetchSteps ?? 2, options.onBadImage);
}

/** The pool over given lanes. @param steps steps of the run: nothing is prefetched beyond */
export function poolOf(
  lanes: readonly Lane[],
  steps: number,
  prefetchSteps: number,
  onBadImage: (image: BadImage) => void = () => undefined,
): BatchPool {
  const idle = [...lanes];
  const entries = new Map<string, BatchEntry>();
  const reported = new Set<number>();
  const free: CropBuffers[] = [];
  const counts = { batches: 0, images: 0, waits: 0 };
  let leftOut: readonly DataWindow[] = [];
  let isClosed = false;

  const account = (batch: RankBatch): void => {
    counts.batches++;
    counts.images += batch.sampleIds.length;
    for (const bad of batch.badImages) {
      if (reported.has(bad.id)) continue;
      reported.add(bad.id);
      onBadImage(bad);
    }
  };

  const dispatch = (): void => {
    while (idle.length > 0 && !isClosed) {
      const entry = nextQueued(entries.values());
      const lane = entry && idle.pop();
      if (!lane) return;
      void entry.runOn(lane, free.pop(), account).finally(() => {
        idle.push(lane);
        dispatch();
      });
    }
  };

  const ensure = (step: number, rank: number): BatchEntry => {
    const wanted = new BatchEntry(step, rank, dataStepOf(leftOut, step));
    const entry = entries.get(wanted.key) ?? wanted;
    entries.set(entry.key, entry);
    return entry;
  };

  const recycle = ({ globalCrops, localCrops, gramCrops }: CropBuffers): void => {
    free.push({ globalCrops, localCrops, gramCrops });
  };

  /** What is being made already is finished, and only its memory is kept. */
  const drop = (key: string, entry: BatchEntry): void => {
    entries.delete(key);
    if (entry.state !== "queued") entry.batch.then(recycle, () => undefined);
  };

  /** Drops what the last request has made unlikely. */
  const evict = (step: number, ranks: readonly number[]): void => {
    for (const [key, entry] of entries) {
      const isAhead = step < entry.step && entry.step <= step + prefetchSteps;
      if (entry.isWanted || (isAhead && ranks.includes(entry.rank))) continue;
      drop(key, entry);
    }
  };

  const answer = async (asked: readonly BatchEntry[]): Promise<RankBatch[]> => {
    try {
      return await Promise.all(asked.map((entry) => entry.batch));
    } finally {
      for (const entry of asked) entries.delete(entry.key);
    }
  };

  return {
    request(step, ranks) {
      if (isClosed) return Promise.reject(closedError());
      const asked = ranks.map((rank) => ensure(step, rank));
      for (const entry of asked) entry.isWanted = true;
      counts.waits += asked.filter((entry) => entry.state !== "done").length;
      evict(step, ranks);
      for (let s = step + 1; s <= Math.min(step + prefetchSteps, steps - 1); s++) {
        for (const rank of ranks) ensure(s, rank);
      }
      dispatch();
      const answered = answer(asked);
      answered.catch(() => undefined); // closing may reject it before its owner gets to await it
      return answered;
    },
    leaveOut(windows) {
      leftOut = windows;
      for (const [key, entry] of entries) {
        if (!entry.isWanted && entry.dataStep !== dataStepOf(windows, entry.step)) drop(key, entry);
      }
    },
    release: (batches) => batches.forEach(recycle),
    stats: () => ({
      ...counts,
      badImages: reported.size,
      prefetched: [...entries.values()].filter((entry) => !entry.isWanted).length,
    }),
    async close() {
      isClosed = true;
      for (const entry of entries.values()) entry.fail(closedError());
      entries.clear();
      await Promise.all(lanes.map((lane) => lane.close()));
    },
  };
}

function closedError(): PaddockError {
  return new PaddockError(
    "run-failed",
    "expected an open batch pool, received close() before the batches were made",
  );
}
