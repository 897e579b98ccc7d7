/** Where the stages of a staged spec lie in a run directory. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { holdsRun } from "../run/run-directory.js";
import { parseStages, type StagedSpec } from "./staged-spec.js";

/** The staged spec as it was read. */
export function stagesFile(runDir: string): string {
  return join(runDir, "stages.json");
}

/** Whether the directory holds the stages of a staged spec. */
export function holdsStages(runDir: string): boolean {
  return existsSync(stagesFile(runDir));
}

/** A folder for each stage, in their order. */
export function stageDirs(runDir: string, { stages }: StagedSpec): string[] {
  return stages.map(({ name }, i) => join(runDir, `${i + 1}-${name}`));
}

/** The run directory itself, or the folder of its stage that runs, ran last, or is next. */
export async function resolveStage(runDir: string): Promise<string> {
  if (!holdsStages(runDir)) return runDir;
  const staged = parseStages(JSON.parse(await readFile(stagesFile(runDir), "utf8")));
  const folders = stageDirs(runDir, staged);
  return folders.findLast(holdsRun) ?? (folders[0] as string);
}
