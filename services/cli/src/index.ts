/** The command line, for tools that embed it. */
export type { Io } from "./io.js";
export { type OfficialInput, officialRecipe, type Recipe } from "./official/recipe.js";
export { runCli } from "./program.js";
export { writeReport } from "./report/write-report.js";
export { loadPlan } from "./spec/load-spec.js";
