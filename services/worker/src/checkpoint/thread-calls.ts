/** What the main thread asks of the checkpoint thread, and what that says meanwhile. */

import type { Wanted } from "./file-content.js";
import type { Loaded } from "./load.js";
import type { ExpectedState } from "./reader.js";
import type { ShardFile, WrittenFile } from "./writer.js";

export interface LoadRequest {
  readonly directory: string;
  readonly expected: ExpectedState;
  /** Targets on shared memory. */
  readonly wanted: readonly Wanted[];
}

export type CheckpointCalls = {
  save(request: { readonly id: number; readonly shard: ShardFile }): Promise<WrittenFile>;
  load(request: LoadRequest & { readonly id: number }): Promise<Loaded>;
};

export type CheckpointHostCalls = {
  /** The data of that save have been copied. */
  copied(request: { readonly id: number }): Promise<void>;
  /** Bytes have moved since the last time, a second ago or longer. */
  moved(request: { readonly id: number }): Promise<void>;
};
