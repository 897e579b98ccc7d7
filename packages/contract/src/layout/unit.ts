/** What a layout is made of. */

/** Gradient norms are reported, and unless each tensor is clipped by itself also limited, per submodule. */
export type Submodule = "backbone" | "dino_head" | "ibot_head";

export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /**
   * First element in the unit's flat vector; a multiple of 16 (64 bytes), so that views are aligned alike everywhere, or of a chunk
   * where norms of single parameters are needed.
   */
  readonly offset: number;
  readonly elements: number;
  /** Factor on the learning rate (layer decay, patch embedding). */
  readonly lrMultiplier: number;
  /** Factor on the weight decay: 0 or 1. */
  readonly wdMultiplier: number;
  /** false: keeps its initial value in the student (frozen magnitudes of prototypes). */
  readonly trainable: boolean;
  /** The prototypes: their learning rate is 0 while the last layer is frozen. */
  readonly isLastLayer: boolean;
}

/** The granule of gathering and freeing. */
export interface Unit {
  /** "embed", "block.0" ..., "norm", "dino_head", "ibot_head". */
  readonly name: string;
  readonly submodule: Submodule;
  readonly parameters: readonly Parameter[];
  /** Elements of the flat vector, padding included. Padding is zero and stays zero. */
  readonly elements: number;
}
