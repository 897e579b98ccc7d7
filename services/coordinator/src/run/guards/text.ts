/** What guards did, for people. */
import type { DataWindow } from "@paddock/contract";

/** "back to step 40, without the data of steps 45 to 47: ..." */
export function rollbackText(rollback: {
  readonly toStep: number;
  readonly skip: DataWindow | null;
  readonly message: string;
}): string {
  const { toStep, skip, message } = rollback;
  const without = skip ? `, without the data of steps ${skip.from} to ${skip.to - 1}` : "";
  return `back to step ${toStep}${without}: ${message}`;
}
