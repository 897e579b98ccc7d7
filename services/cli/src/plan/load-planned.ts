/** The run, or the stages of one, that a plan is made for: a run spec, a spec with stages, or an official config. */
import { resolve } from "node:path";
import type { RunSpec } from "@paddock/contract";
import { openDataset } from "@paddock/data";
import { flagOverrides, refuseOfficialFlags } from "../spec/flag-overrides.js";
import { isOwnFile, loadOfficialRecipe, type RecipeFlags } from "../spec/load-recipe.js";
import { loadPlan } from "../spec/load-spec.js";
import { parseOverride } from "../spec/overrides.js";
import { parseStages, specOfStage } from "../stages/staged-spec.js";
import { planOf, type RunPlan } from "./plan.js";

export interface PlannedFlags extends RecipeFlags {
  /** Training images; absent: counted where that is cheap. */
  readonly images?: number;
}

/** What a run, or each stage of one, will need. Errors: `not-found`, `invalid-spec`, `invalid-argument`. */
export async function loadPlanned(
  file: string,
  o: { readonly overrides: readonly string[]; readonly flags: PlannedFlags; readonly cwd: string },
): Promise<RunPlan[]> {
  const { flags } = o;
  const specs = await specsOf(resolve(o.cwd, file), o);
  const plans = specs.map(async (spec) => {
    const images = flags.images ?? (await imagesOf(spec));
    return planOf(spec, { workers: flags.workers ?? spec.fleet.workers, images });
  });
  return await Promise.all(plans);
}

async function specsOf(
  file: string,
  { overrides, flags, cwd }: Parameters<typeof loadPlanned>[1],
): Promise<RunSpec[]> {
  if (flags.official === undefined && (await isOwnFile(file))) {
    refuseOfficialFlags(flags);
    // More workers than a spec may ask for are a warning of the plan.
    const { workers: _, ...fields } = flags;
    const all = [...flagOverrides(fields, cwd), ...overrides.map(parseOverride)];
    const loaded = await loadPlan(file, all);
    if ("spec" in loaded) return [loaded.spec];
    return parseStages(loaded.stages).stages.map((stage) =>
      specOfStage(stage, "(the stage before)"),
    );
  }
  const { workers = 1, logicalRanks = workers } = flags;
  const allowed = flags.workers === undefined ? {} : { workers: Math.min(workers, logicalRanks) };
  const { workers: _, ...others } = flags;
  const bounded = { ...others, ...allowed };
  const fromFlags = flagOverrides(bounded, cwd);
  const recipe = await loadOfficialRecipe(file, { flags: bounded, overrides, fromFlags, cwd });
  return [recipe.spec];
}

/** A file of images says how many it holds; a folder would have to be walked through. */
async function imagesOf({ data }: RunSpec): Promise<number | null> {
  if (data.kind !== "idx") return null;
  return await openDataset(data, "train").then(
    ({ count }) => count,
    () => null,
  );
}
