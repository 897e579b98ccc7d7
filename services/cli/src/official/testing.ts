/** Options for tests: a GPU machine without files. */
import type { OfficialOptions } from "./draft.js";

export function optionsFor(changes: Partial<OfficialOptions>): OfficialOptions {
  return {
    name: "test",
    logicalRanks: 2,
    workers: 1,
    maxThreads: 4,
    precision: null,
    fp32Because: null,
    data: null,
    exists: () => false,
    read: (path) => {
      throw new Error(`no file ${path}`);
    },
    ...changes,
  };
}
