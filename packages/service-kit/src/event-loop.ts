/** How long the main thread keeps others waiting: leases and sessions are only as punctual as the event loop. */
import { monitorEventLoopDelay } from "node:perf_hooks";

const resolutionMs = 10;

export interface EventLoopMonitor {
  /** 99th percentile of the delay since the last call, in milliseconds beyond the sampling interval; then starts anew. */
  takeP99Ms(): number;
  close(): void;
}

/** Samples every 10 ms, which costs about 0.1 % of a core. The caller closes it. */
export function monitorEventLoop(): EventLoopMonitor {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  return {
    takeP99Ms() {
      // Node's samples include the interval itself: an idle loop reads as `resolution`.
      const delayMs = histogram.count > 0 ? histogram.percentile(99) / 1e6 - resolutionMs : 0;
      histogram.reset();
      return Math.max(0, delayMs);
    },
    close: () => void histogram.disable(),
  };
}
