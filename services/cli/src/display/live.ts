/** For a terminal: a block of a few lines that is redrawn in place; events scroll by above it. */
import type { StepRecord } from "@paddock/contract";
import { type Run, RunPhase } from "@paddock/proto";
import type { Io } from "../io.js";
import type { Display } from "./display.js";
import { count, duration, loss, percent, rate, small } from "./format.js";
import { type Look, lastStepOf } from "./milestones.js";

const redrawMs = 100;
const barWidth = 28;

// biome-ignore lint/suspicious/noControlCharactersInRegex: ESC starts the codes that colour text
const colorCodes = /\u001b\[[0-9;?]*[a-zA-Z]/g;

const dim = (text: string): string => `\u001b[2m${text}\u001b[22m`;
const bold = (text: string): string => `\u001b[1m${text}\u001b[22m`;
const red = (text: string): string => `\u001b[31m${text}\u001b[39m`;
const green = (text: string): string => `\u001b[32m${text}\u001b[39m`;

/** Redraws at most every 100 ms. */
export function liveDisplay(io: Io, look: Look): Display {
  let drawn = 0;
  let latest: Run | undefined;
  let knnStart: number | undefined;
  let timer: NodeJS.Timeout | undefined;

  const erase = (): string => (drawn > 0 ? `\u001b[${drawn}A\r\u001b[J` : "");
  const draw = (above = ""): void => {
    clearTimeout(timer);
    timer = undefined;
    const lines = latest
      ? blockLines(latest, knnStart).map((line) => clip(line, io.columns()))
      : [];
    io.out(`${erase()}${above}${lines.map((line) => `${line}\n`).join("")}`);
    drawn = lines.length;
  };
  return {
    update(run) {
      latest = run;
      if (run.knnAccuracy >= 0) knnStart ??= run.knnAccuracy;
      const shown = look(run).events.filter(({ kind }) => kind !== "checkpoint");
      if (shown.length > 0) draw(shown.map(({ message }) => `${message}\n`).join(""));
      else timer ??= setTimeout(draw, redrawMs);
    },
    event({ kind, message }) {
      if (kind !== "result") return draw(`${message}\n`);
      // The last word stands below the block, which stays as it is.
      draw();
      io.out(`${message}\n`);
      latest = undefined;
      drawn = 0;
    },
    close: () => draw(),
  };
}

/** The block without colours. */
export function plainBlock(run: Run): string[] {
  return blockLines(run, undefined).map((line) => line.replace(colorCodes, ""));
}

function blockLines(run: Run, knnStart: number | undefined): string[] {
  const step = lastStepOf(run);
  const engines = [...new Set(run.workers.map(({ engine }) => engine).filter(Boolean))].join(", ");
  // Workers leave before the last look.
  const numWorkers = run.workers.length || (step?.workers ?? 0);
  const workers = `${numWorkers} worker${numWorkers === 1 ? "" : "s"}`;
  const title = [run.name, engines, workers, `generation ${run.generation}`].filter(Boolean);
  return [
    bold(title.join(" · ")),
    `${bar(run.step / Math.max(1, run.steps))} step ${count(run.step)}/${count(run.steps)}${speed(run)}`,
    ...(step ? [lossLine(step)] : []),
    stateLine(run, knnStart),
    ...(run.alert === "" ? [] : [red(`warning: ${run.alert}`)]),
    ...run.incidents.slice(-1).map((incident) => dim(`guard: ${incident}`)),
    ...(isWaiting(run) ? [dim(`waiting for ${run.waitingFor}`)] : []),
  ];
}

/** While steps are computed, somebody always waits for somebody: that says nothing. */
function isWaiting({ phase, waitingFor }: Run): boolean {
  return waitingFor !== "" && phase !== RunPhase.RUN_PHASE_RUNNING;
}

function speed(run: Run): string {
  if (run.imagesPerSecond <= 0) return "";
  return ` · ${rate(run.imagesPerSecond)} images/s · ETA ${duration(run.etaSeconds)}`;
}

function lossLine({ loss: total, losses, lr }: StepRecord): string {
  const parts = Object.entries(losses)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => `${name} ${value.toFixed(3)}`)
    .join(" · ");
  return `loss ${loss(total)} ${dim(`${parts} · lr ${small(lr)}`)}`;
}

function stateLine(run: Run, knnStart: number | undefined): string {
  const knn =
    run.knnAccuracy < 0 ? "k-NN not yet" : `k-NN ${percent(run.knnAccuracy)}${since(knnStart)}`;
  const checkpoint =
    run.checkpointStep < 0
      ? "no checkpoint yet"
      : `checkpoint at step ${count(run.checkpointStep)}`;
  return [knn, checkpoint].join(" · ");
}

function since(knnStart: number | undefined): string {
  return knnStart === undefined ? "" : ` (step 0: ${percent(knnStart)})`;
}

function bar(fraction: number): string {
  const full = Math.round(Math.min(1, fraction) * barWidth);
  return green("━".repeat(full)) + dim("─".repeat(barWidth - full));
}

/** Cuts a line to `columns` visible characters: a line that wraps would break the redraw. Colour codes take no room. */
export function clip(line: string, columns: number): string {
  let room = Math.max(1, columns - 1);
  let clipped = "";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ESC starts the colour codes that must be kept whole
  for (const [, code, character] of line.matchAll(/(\u001b\[[0-9;?]*[a-zA-Z])|(.)/gu)) {
    if (code !== undefined) clipped += code;
    else if (room-- > 0) clipped += character;
  }
  return clipped;
}
