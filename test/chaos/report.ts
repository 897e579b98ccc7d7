/** What people read: a line per fault while it runs, tables at the end. */
import type { FaultyRun } from "./faulty-run.js";
import type { FaultRecord } from "./inject.js";
import type { MatrixCell } from "./matrix.js";
import { applies, pointActions, pointNames } from "./points.js";

export function recordLine(record: FaultRecord): string {
  const { name, result, step, toGeneration, toCommit } = record;
  return [
    name.padEnd(44),
    `step ${step}`.padEnd(10),
    secondsText(toGeneration).padStart(7),
    secondsText(toCommit).padStart(7),
    ` ${result}${record.lostCommits > 0 ? `, ${record.lostCommits} commits voided` : ""}`,
  ].join(" ");
}

export const recordHead = `${"fault".padEnd(44)} ${"when".padEnd(10)} ${"to new".padStart(7)} ${"to next".padStart(7)}\n${" ".repeat(55)} ${"gener.".padStart(7)} ${"commit".padStart(7)}  s`;

export function runLine({ outcome, broken, folder }: FaultyRun): string {
  if (broken !== undefined) return `BROKEN: ${broken}\n  everything it wrote: ${folder}`;
  const { hash = "", samples = [], generations = 0, lostCommits = 0, seconds = 0 } = outcome ?? {};
  return `ok: state ${hash.slice(0, 16)}, ${samples.length} samples, ${generations} generations, ${lostCommits} commits computed again, ${seconds.toFixed(0)} s`;
}

/** Per kind of fault: how many, and the seconds to the next commit. */
export function summaryTable(records: readonly FaultRecord[]): string {
  const acted = records.filter(({ hasActed }) => hasActed);
  const names = [...new Set(acted.map(kindOf))].sort();
  const rows = names.map((name) => {
    const seconds = acted
      .filter((record) => kindOf(record) === name)
      .flatMap(({ toCommit }) => (toCommit === null ? [] : [toCommit]))
      .sort((a, b) => a - b);
    const count = acted.filter((record) => kindOf(record) === name).length;
    const median = seconds[seconds.length >> 1] ?? null;
    return `| ${name} | ${count} | ${secondsText(median)} | ${secondsText(seconds.at(-1) ?? null)} |`;
  });
  return [
    "| fault | times | median to next commit, s | worst |",
    "|---|---|---|---|",
    ...rows,
  ].join("\n");
}

/** Faults at failpoints by their action. */
function kindOf({ name }: FaultRecord): string {
  return name.includes(".") ? `failpoint ${name.split(" ").at(-1)}` : name;
}

/** Rows: points; columns: actions; the worst seconds to the next commit over the repeats. */
export function matrixTable(repeats: readonly (readonly MatrixCell[])[]): string {
  const head = `| point | ${pointActions.join(" | ")} |`;
  const rule = `|---|${pointActions.map(() => "---").join("|")}|`;
  const rows = pointNames.map((point) => {
    const cells = pointActions.map((action) => {
      if (!applies({ point, action })) return "";
      const tried = repeats.flatMap((cells) =>
        cells.filter((cell) => cell.point === point && cell.action === action),
      );
      return tried.length === 0 ? "" : cellText(tried);
    });
    return `| ${point} | ${cells.join(" | ")} |`;
  });
  return [head, rule, ...rows].join("\n");
}

function cellText(tried: readonly MatrixCell[]): string {
  const bad = tried.filter(({ broken }) => broken !== undefined).length;
  if (bad > 0) return `**${bad} of ${tried.length} broken**`;
  const seconds = tried.flatMap(({ record }) =>
    record?.toCommit === null || record === undefined ? [] : [record.toCommit],
  );
  return seconds.length === 0 ? "ok" : `ok ${Math.max(...seconds).toFixed(1)}`;
}

function secondsText(seconds: number | null): string {
  return seconds === null ? "-" : seconds.toFixed(2);
}
