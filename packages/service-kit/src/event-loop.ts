/** How long the main thread keeps others waiting: leases and sessions are only as punctual as the event loop. */
import { monitorEventLoopDelay } from "node:perf_hooks";

const resolutionMs = 10;
/** Fewer samples have no 99th percentile to speak of: it would be their maximum. At least 10 s. */
const windowSamples = 1000;

export interface EventLoopMonitor {
  /** 99th percentile of the delay in the current window of at least 10 s, in milliseconds beyond the sampling interval. */
  p99Ms(): number;
  close(): void;
}

/** Samples every 10 ms, which costs about 0.1 % of a core. The caller closes it. */
export function monitorEventLoop(): EventLoopMonitor {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  return {
    p99Ms() {
      // Node's samples include the interval itself: an idle loop reads as `resolution`.
      const delayMs = histogram.count > 0 ? histogram.percentile(99) / 1e6 - resolutionMs : 0;
      if (histogram.count >= windowSamples) histogram.reset();
      return Math.max(0, delayMs);
    },
    close: () => void histogram.disable(),
  };
}
