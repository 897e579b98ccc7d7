/** Ends a run the hard way: every process of it, at once. */
import { execFileSync } from "node:child_process";
import type { Started } from "./paddock.js";

/** Every process below `root`, itself included: workers have process groups of their own. */
function processTree(root: number): number[] {
  const parents = execFileSync("ps", ["-eo", "pid=,ppid="], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
  const found = [root];
  for (const pid of found)
    found.push(...parents.filter(([, ppid]) => ppid === pid).map(([child]) => child));
  return found;
}

export async function killAll({ process: child, done }: Started): Promise<void> {
  for (const pid of processTree(child.pid as number).reverse()) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself in between.
    }
  }
  await done;
}
