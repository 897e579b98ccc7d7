/**
 * Makes batches ahead of time, off the main thread. A request is answered from what was prefetched for it; whatever is left of the
 * pool's capacity works on the following steps of the same ranks. Batches are pure functions of (step, rank), so a wrong guess (the
 * ranks changed, a step was repeated) costs time and changes nothing.
 */
import { PaddockError, type RunSpec } from "@paddock/contract";
import type { BadImage, RankBatch } from "../batch.js";
import { openDataset, type SharedDataset } from "../datasets/open-dataset.js";
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

interface Entry {
  readonly step: number;
  readonly rank: number;
  readonly batch: Promise<RankBatch>;
  /** Settles `batch` by running it on a lane. */
  readonly start: (lane: Lane) => Promise<void>;
  readonly fail: (error: PaddockError) => void;
  state: "queued" | "running" | "done";
  wanted: boolean;
}

/** The pool over given lanes. @param steps steps of the run: nothing is prefetched beyond */
export function poolOf(
  lanes: readonly Lane[],
  steps: number,
  prefetchSteps: number,
  onBadImage: (image: BadImage) => void = () => undefined,
): BatchPool {
  const idle = [...lanes];
  const entries = new Map<string, Entry>();
  const reported = new Set<number>();
  let isClosed = false;
  let [batches, images, waits] = [0, 0, 0];

  const closedError = () =>
    new PaddockError("run-failed", "expected an open batch pool, received a request after close()");

  const account = (batch: RankBatch): void => {
    batches++;
    images += batch.sampleIds.length;
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
      entry.state = "running";
      void entry.start(lane).finally(() => {
        entry.state = "done";
        idle.push(lane);
        dispatch();
      });
    }
  };

  const ensure = (step: number, rank: number, wanted: boolean): Entry => {
    const key = `${step}/${rank}`;
    const entry = entries.get(key) ?? makeEntry(step, rank, account);
    entry.wanted ||= wanted;
    entries.set(key, entry);
    return entry;
  };

  /** Drops what the last request has made unlikely. A running batch finishes and is thrown away. */
  const evict = (step: number, ranks: readonly number[]): void => {
    for (const [key, entry] of entries) {
      const isLikely =
        step < entry.step && entry.step <= step + prefetchSteps && ranks.includes(entry.rank);
      if (!entry.wanted && !isLikely) entries.delete(key);
    }
  };

  return {
    async request(step, ranks) {
      if (isClosed) throw closedError();
      const asked = ranks.map((rank) => ensure(step, rank, true));
      waits += asked.filter((entry) => entry.state !== "done").length;
      evict(step, ranks);
      for (let s = step + 1; s <= Math.min(step + prefetchSteps, steps - 1); s++) {
        for (const rank of ranks) ensure(s, rank, false);
      }
      dispatch();
      try {
        return await Promise.all(asked.map((entry) => entry.batch));
      } finally {
        for (const entry of asked) entries.delete(`${entry.step}/${entry.rank}`);
      }
    },
    stats: () => ({
      batches,
      images,
      waits,
      badImages: reported.size,
      prefetched: [...entries.values()].filter((entry) => !entry.wanted).length,
    }),
    async close() {
      isClosed = true;
      for (const entry of entries.values()) entry.fail(closedError());
      entries.clear();
      await Promise.all(lanes.map((lane) => lane.close()));
    },
  };
}

/** Requested batches first, then prefetched ones; in order of step and rank as they were entered. */
function nextQueued(entries: Iterable<Entry>): Entry | undefined {
  let first: Entry | undefined;
  for (const entry of entries) {
    if (entry.state !== "queued") continue;
    if (entry.wanted) return entry;
    first ??= entry;
  }
  return first;
}

function makeEntry(step: number, rank: number, account: (batch: RankBatch) => void): Entry {
  const { promise, resolve, reject } = withResolvers<RankBatch>();
  promise.catch(() => undefined); // whoever asked for it awaits it too; a prefetched failure waits for its request
  return {
    step,
    rank,
    batch: promise,
    state: "queued",
    wanted: false,
    fail: reject,
    async start(lane) {
      try {
        const batch = await lane.run({ step, rank });
        account(batch);
        resolve(batch);
      } catch (thrown) {
        reject(PaddockError.from(thrown));
      }
    },
  };
}

/** `Promise.withResolvers`, which Node has from 22 on. */
function withResolvers<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: Error) => void;
} {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
}
