/** Chooses how a run is shown: redrawn on a terminal, lines elsewhere, JSON for programs. */
import type { Io } from "../io.js";
import { followSteps } from "../run/steps-tail.js";
import type { Display } from "./display.js";
import { jsonDisplay } from "./json.js";
import { linesDisplay } from "./lines.js";
import { liveDisplay } from "./live.js";
import { milestoneWatcher } from "./milestones.js";

/** What a display must know of its run beforehand. */
export interface Shown {
  /** JSON lines repeat its steps.jsonl. */
  readonly runDir: string;
  /** Steps between evaluations. */
  readonly evaluateEvery: number;
}

export function openDisplay(io: Io, shown: Shown, json: boolean): Display {
  const look = milestoneWatcher(shown.evaluateEvery);
  if (json) return jsonDisplay(io, look, followSteps(shown.runDir));
  return io.isTerminal ? liveDisplay(io, look) : linesDisplay(io, look);
}
