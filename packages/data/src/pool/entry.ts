/** One batch of a pool: asked for or prefetched, queued, being made, or done. */
import { PaddockError } from "@paddock/contract";
import type { CropBuffers, RankBatch } from "../batch.js";
import type { Lane } from "./lane.js";

export class BatchEntry {
  readonly step: number;
  readonly rank: number;
  readonly dataStep: number;
  /** Settles when the batch is made, or cannot be. Nobody needs to watch a prefetched failure: it waits for its request. */
  readonly batch: Promise<RankBatch>;
  state: "queued" | "running" | "done" = "queued";
  /** Whether somebody waits for it, as opposed to a guess. */
  isWanted = false;
  #resolve: (batch: RankBatch) => void = () => undefined;
  #reject: (error: PaddockError) => void = () => undefined;

  constructor(step: number, rank: number, dataStep: number) {
    this.step = step;
    this.rank = rank;
    this.dataStep = dataStep;
    this.batch = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.batch.catch(() => undefined);
  }

  get key(): string {
    return `${this.step}/${this.rank}/${this.dataStep}`;
  }

  /** Makes the batch on an idle lane. Never rejects. @param account told of the batch before anybody else */
  async runOn(
    lane: Lane,
    buffers: CropBuffers | undefined,
    account: (batch: RankBatch) => void,
  ): Promise<void> {
    this.state = "running";
    try {
      const batch = await lane.run({
        step: this.step,
        rank: this.rank,
        dataStep: this.dataStep,
        buffers,
      });
      account(batch);
      this.#resolve(batch);
    } catch (thrown) {
      this.#reject(PaddockError.from(thrown));
    }
    this.state = "done";
  }

  /** Settles the batch without making it. */
  fail(error: PaddockError): void {
    this.#reject(error);
  }
}

/** What to make next: requested batches first, then guesses; each in the order in which they were entered. */
export function nextQueued(entries: Iterable<BatchEntry>): BatchEntry | undefined {
  let guess: BatchEntry | undefined;
  for (const entry of entries) {
    if (entry.state !== "queued") continue;
    if (entry.isWanted) return entry;
    guess ??= entry;
  }
  return guess;
}
