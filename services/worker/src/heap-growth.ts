/** How far V8 lets the JavaScript heap of a process that lives for a week grow before it collects. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Every thread's old generation is collected when it has grown by a fifth; left to itself V8 waits until it is several times as large. A step leaves
 * about 25 KB there, so that a worker's memory would go on rising for thousands of steps, and only then turn out to be no leak. To be called
 * before threads are started.
 */
export function limitHeapGrowth(): void {
  setFlagsFromString("--heap-growing-percent=20");
  // The first collection of a thread that starts later; growth is counted from there.
  setFlagsFromString("--initial-old-space-size=16");
  // This thread's own.
  collectGarbage();
}

/** A full collection of this thread's heap, now. */
export function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  collect();
}
