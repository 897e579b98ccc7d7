/** A generation's files of checkpoints: copied while nothing changes the state, written and told of afterwards. */
import { invariant, type PaddockError, type RunSpec } from "@paddock/contract";
import type { WorkerMessage } from "@paddock/proto";
import type { createLogger } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { CheckpointHost } from "../checkpoint/checkpoint-host.js";
import type { WrittenFile } from "../checkpoint/writer.js";
import type { EngineHost } from "../engine/engine-host.js";
import { keptShards, type Shards } from "../segment/shards.js";
import { shardFileOf } from "../segment/state-io.js";

export interface SavesDeps {
  readonly spec: RunSpec;
  readonly engine: EngineHost;
  readonly checkpoints: Pick<CheckpointHost, "save">;
  readonly logger: Pick<ReturnType<typeof createLogger>, "error">;
  readonly send: (message: WorkerMessage) => void;
}

export class Saves {
  readonly #deps: SavesDeps;
  readonly #shards: Shards;
  #copying: Promise<unknown> = Promise.resolve();

  constructor(deps: SavesDeps, shards: Shards) {
    this.#deps = deps;
    this.#shards = shards;
  }

  /** Resolves when no save reads the state any more: an update waits for it. */
  get copied(): Promise<unknown> {
    return this.#copying;
  }

  /**
   * Saves the state as it is now. Resolves when the state may change again; the file is written meanwhile, and after this generation has
   * ended too: whoever writes it writes the same bytes.
   * @param directory `checkpoints/<step>`
   * @param onProgress now and then, while bytes move
   */
  save(step: number, directory: string, onProgress: () => void): Promise<void> {
    const copied = this.#copy(step, directory, onProgress);
    this.#copying = Promise.allSettled([this.#copying, copied]);
    return copied;
  }

  async #copy(step: number, directory: string, onProgress: () => void): Promise<void> {
    const { engine, spec, checkpoints } = this.#deps;
    await failpoint("worker.checkpoint.begun");
    const all = keptShards(this.#shards);
    const kept = spec.checkpoint.replicas ? all : all.slice(0, 1);
    const hasFirst = kept.some(({ membership }) => membership.worker === 0);
    const centers = hasFirst ? await engine.call("centers", {}) : null;
    await engine.call("syncState", {});
    const [own, replica] = kept.map((shards, i) => {
      const ownCenters = shards.membership.worker === 0 ? centers : null;
      const saved = { ...shards, directory, step, centers: ownCenters, isReplica: i > 0 };
      return checkpoints.save(shardFileOf(saved), onProgress);
    });
    invariant(own, "a worker keeps its own shards");
    own.written.then(
      (file) => this.#reportWritten(step, file),
      (error: PaddockError) => this.#reportUnwritten(step, error),
    );
    // A replica costs nothing but itself.
    replica?.written.catch((error: PaddockError) =>
      this.#deps.logger.error({ step, reason: error.message }, "replica failed here"),
    );
    await own.copied;
    await replica?.copied;
  }

  #reportWritten(step: number, { name: file, bytes, sha256, ghash = "", head }: WrittenFile): void {
    const { generation, worker } = this.#shards.membership;
    const [headBytes, headSha256] = [head?.bytes ?? 0, head?.sha256 ?? ""];
    const of = { generation, step, worker };
    const checkpointWritten = { ...of, file, bytes, sha256, headBytes, headSha256, ghash };
    this.#deps.send({ kind: "checkpointWritten", checkpointWritten });
  }

  #reportUnwritten(step: number, { code, message }: PaddockError): void {
    const { generation } = this.#shards.membership;
    const checkpointFailed = { generation, step, code, message };
    this.#deps.logger.error(checkpointFailed, "checkpoint failed here");
    this.#deps.send({ kind: "checkpointFailed", checkpointFailed });
  }
}
