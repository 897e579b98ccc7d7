/** What a piece of work costs this process: wall and CPU time, page faults, the highest resident memory on the way. */
import { readFileSync, writeFileSync } from "node:fs";
import type { Answer } from "./sides.js";

/** Resident memory of this process now, in MiB. */
export function residentMiB(): number {
  return statusMiB("VmRSS");
}

/**
 * Runs `work` and measures it: `ms`, `cpuMs` (all threads), `faults` (pages the kernel had to hand out), `peakMiB` (highest
 * resident memory since the start of the work).
 */
export async function measured(work: () => Promise<void> | void): Promise<Answer> {
  writeFileSync("/proc/self/clear_refs", "5"); // the peak starts from now
  const before = process.resourceUsage();
  const start = performance.now();
  await work();
  const ms = performance.now() - start;
  const after = process.resourceUsage();
  const cpu = (usage: NodeJS.ResourceUsage) => usage.userCPUTime + usage.systemCPUTime;
  return {
    ms,
    cpuMs: (cpu(after) - cpu(before)) / 1000,
    faults: after.minorPageFault - before.minorPageFault,
    peakMiB: statusMiB("VmHWM"),
  };
}

function statusMiB(field: string): number {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(
    readFileSync("/proc/self/status", "utf8"),
  );
  return Number(line?.[1]) / 1024;
}
