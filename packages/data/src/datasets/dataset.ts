/** A dataset: a fixed, ordered set of images with optional class labels, read one by one. */
import type { Image } from "../image.js";

export type Split = "train" | "validation";

export interface Dataset {
  readonly count: number;
  /** Class names in order of their label, or null if no image has a label. */
  readonly classes: readonly string[] | null;
  /** Label of sample `id`, or null if it has none. */
  label(id: number): number | null;
  /** Where sample `id` comes from, for messages: a path, or "file#index". */
  describe(id: number): string;
  /** Decodes sample `id`. Throws `BadImageError` if it cannot be used. Never write to the pixels: they may be shared. */
  load(id: number): Promise<Image>;
}
