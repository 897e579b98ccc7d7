import type { Layout, RunSpec } from "@paddock/contract";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Place } from "../official-names.js";
import type { RunState } from "../one-rank.js";

/** One file being run. */
export interface ArchRun {
  readonly golden: Golden;
  readonly check: Check;
  readonly spec: RunSpec;
  readonly layout: Layout;
  readonly places: readonly Place[];
  readonly state: RunState;
}
