/** `paddock recipe <file>`: the effective recipe of a config, without running it. */
import { resolve } from "node:path";
import type { Io } from "../io.js";
import { recipeJson, recipeText } from "../official/text.js";
import { flagOverrides } from "../spec/flag-overrides.js";
import { loadAnyRecipe, type RecipeFlags } from "../spec/load-recipe.js";

interface RecipeCommandFlags extends RecipeFlags {
  readonly file: string;
  readonly overrides: readonly string[];
  readonly json?: boolean;
}

/** Returns the exit code. */
export async function recipeCommand(flags: RecipeCommandFlags, io: Io): Promise<number> {
  const { overrides, file } = flags;
  const request = { flags, overrides, fromFlags: flagOverrides(flags, io.cwd), cwd: io.cwd };
  const recipe = await loadAnyRecipe(resolve(io.cwd, file), request);
  io.out(flags.json ? recipeJson(recipe) : recipeText(recipe));
  return 0;
}
