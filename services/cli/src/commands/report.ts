/** `paddock report <run-dir>`: report.html once more, from the files of the run. */
import { resolve } from "node:path";
import type { Io } from "../io.js";
import { writeReport } from "../report/write-report.js";
import { resolveStage } from "../stages/stage-folders.js";

/** Returns the exit code. */
export async function reportCommand({ runDir }: { runDir: string }, io: Io): Promise<number> {
  io.out(`${await writeReport(await resolveStage(resolve(io.cwd, runDir)))}\n`);
  return 0;
}
