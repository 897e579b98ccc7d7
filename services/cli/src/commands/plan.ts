/** `paddock plan <spec>`: what a run will need, before it runs: ranks, memory, traffic, steps, disk. */
import type { Io } from "../io.js";
import { loadPlanned, type PlannedFlags } from "../plan/load-planned.js";
import { planText } from "../plan/plan-text.js";

interface PlanFlags extends PlannedFlags {
  readonly file: string;
  readonly overrides: readonly string[];
  readonly json?: boolean;
}

/** Returns the exit code. */
export async function planCommand(flags: PlanFlags, io: Io): Promise<number> {
  const { file, overrides } = flags;
  const plans = await loadPlanned(file, { overrides, flags, cwd: io.cwd });
  io.out(flags.json ? `${JSON.stringify({ plans })}\n` : plans.map(planText).join("\n"));
  return 0;
}
