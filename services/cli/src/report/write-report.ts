/** `report.html`: one page that tells a run's story, with everything it needs inside. */
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { escapeHtml } from "./html.js";
import { type ReportData, readRun } from "./read-run.js";
import { factsHeader } from "./sections/facts.js";
import { learningSection } from "./sections/learning.js";
import { picturesSection } from "./sections/pictures.js";
import { recipeSection } from "./sections/recipe.js";
import { schedulesSection } from "./sections/schedules.js";
import { speedSection } from "./sections/speed.js";
import { style } from "./style.js";

/**
 * Writes `<runDir>/report.html` from the run's files, finished or not, and returns its path. It replaces an older one at once.
 * Errors: `not-found` when `runDir` is no run directory.
 */
export async function writeReport(runDir: string): Promise<string> {
  const file = join(runDir, "report.html");
  await writeFile(`${file}.new`, reportPage(await readRun(runDir)));
  await rename(`${file}.new`, file);
  return file;
}

/** The page: self-contained HTML, no scripts, no outside requests. */
function reportPage(run: ReportData): string {
  const title = escapeHtml(`${run.spec.name} - Paddock`);
  const body = [
    factsHeader(run),
    learningSection(run),
    picturesSection(run),
    speedSection(run),
    schedulesSection(run),
    recipeSection(run),
    `<footer>${escapeHtml(footer(run))}</footer>`,
  ].join("\n");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${style}</style>
</head>
<body><main>
${body}
</main></body>
</html>
`;
}

function footer({ runDir, summary, steps }: ReportData): string {
  const last = steps.at(-1);
  const when = last ? `last commit ${new Date(last.unixMs).toISOString()}` : "no commit yet";
  const checkpoint = summary?.checkpoint ? `${summary.checkpoint}, ` : "";
  return `${summary ? `run ${summary.runId}, ` : ""}${checkpoint}${when}, ${runDir}`;
}
