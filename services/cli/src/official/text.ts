/** The effective recipe as text. */
import { show } from "./config.js";
import type { RecipeWarning } from "./draft.js";
import type { Recipe, RecipeRow } from "./recipe.js";

const titles = { dinov2: "DINOv2 config", dinov3: "DINOv3 config", paddock: "Paddock run spec" };
const meanings: Readonly<Record<RecipeWarning["kind"], string>> = {
  unsupported: "not supported",
  note: "note",
  ignored: "ignored",
  dead: "dead in the official code too",
};

/** Everything: each key with its source, derived values with their formulas, warnings. */
export function recipeText(recipe: Recipe): string {
  const keys = groupsOf(recipe.rows).map(([group, rows]) => {
    const lines = rows.map(({ key, value, source }) => [
      `  ${group === "" ? key : key.slice(group.length + 1)}`,
      show(value),
      source,
    ]);
    return `${group || "run"}\n${columns(lines)}`;
  });
  return `${titles[recipe.kind]}\n\n${keys.join("\n")}\n${shortRecipeText(recipe)}`;
}

/** Derived values, warnings, and what keeps the run from starting. */
export function shortRecipeText(recipe: Recipe): string {
  const { derived, warnings, blockers } = recipe;
  const numbers = derived.map(({ key, value, formula }) => [
    `  ${key}`,
    show(value),
    `= ${formula}`,
  ]);
  const kinds = Object.keys(meanings) as RecipeWarning["kind"][];
  const sorted = kinds.flatMap((kind) => warnings.filter((warning) => warning.kind === kind));
  const said = sorted.map(({ key, kind, message }) => `  ${key}: ${meanings[kind]}: ${message}\n`);
  return [
    derived.length > 0 ? `derived\n${columns(numbers)}` : "",
    said.length > 0 ? `warnings\n${said.join("")}` : "",
    blockers.length > 0
      ? `before it can run\n${blockers.map((text) => `  ${text}\n`).join("")}`
      : "",
  ].join("");
}

/** As one JSON object; integers beyond 2^53 as text. */
export function recipeJson(recipe: Recipe): string {
  return `${JSON.stringify(recipe, (_, value) => (typeof value === "bigint" ? String(value) : value), 2)}\n`;
}

function groupsOf(rows: readonly RecipeRow[]): [string, RecipeRow[]][] {
  const groups = new Map<string, RecipeRow[]>();
  for (const row of rows) {
    const group = row.key.includes(".") ? row.key.slice(0, row.key.indexOf(".")) : "";
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  return [...groups];
}

/** Lines of cells, each but the last padded to its column. */
function columns(lines: readonly string[][]): string {
  const widths = [0, 1].map((at) =>
    Math.min(48, Math.max(0, ...lines.map((line) => line[at]?.length ?? 0))),
  );
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}
