/** The effective recipe: every field of the spec, with those that differ from the defaults set apart. */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { escapeHtml, section } from "../html.js";
import type { ReportData } from "../read-run.js";

export function recipeSection({ spec }: ReportData): string {
  const defaults = flatten(defaultsFor(spec));
  const groups = new Map<string, string[]>();
  for (const [path, value] of flatten(spec)) {
    const [first = "", ...rest] = path.split(".");
    const [group, name] = rest.length === 0 ? ["run", first] : [first, rest.join(".")];
    const chosen = defaults.get(path) !== value ? ' class="chosen"' : "";
    const row = `<tr${chosen}><th>${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`;
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  const tables = [...groups].map(
    ([group, rows]) =>
      `<table class="recipe"><caption>${escapeHtml(group)}</caption>${rows.join("")}</table>`,
  );
  return section(
    "Effective recipe",
    `<div class="recipes">${tables.join("")}</div>`,
    "Every field of the run's spec. Bold: set by this run; the rest are defaults.",
  );
}

/** The spec of somebody who set only what has no default. */
function defaultsFor({ steps, batchPerRank, data }: RunSpec): RunSpec {
  return parseRunSpec({
    steps,
    batchPerRank: Math.max(2, batchPerRank),
    data: { path: data.path },
  });
}

/** Leaves of a nested value by dotted path; arrays of plain values are leaves. */
function flatten(value: unknown, path = ""): Map<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return new Map([[path, shown(value)]]);
  }
  return new Map(
    Object.entries(value).flatMap(([key, inner]) => [
      ...flatten(inner, path === "" ? key : `${path}.${key}`),
    ]),
  );
}

function shown(value: unknown): string {
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  if (Array.isArray(value)) return value.map(shown).join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}
