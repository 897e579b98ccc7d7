import type { FlatMath } from "@paddock/engine";
import type { Check } from "./check.js";
import type { Golden } from "./file.js";

export interface KindContext {
  /** The engine's arithmetic on flat vectors, if it has its own. */
  readonly flat: FlatMath | null;
}

/** What one kind of golden file records, and how Paddock computes the same. */
export interface Kind {
  readonly name: string;
  /** Whether the file is of this kind: by its family, config and tensors, never by sizes or seeds. */
  matches(golden: Golden): boolean;
  /** Compares everything that the file records. May throw: the file then counts as failed. */
  run(golden: Golden, check: Check, context: KindContext): Promise<void> | void;
}
