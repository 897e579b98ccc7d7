/** What a run shows while it lives. Three forms: redrawn on a terminal, lines elsewhere, JSON for programs. */
import type { Run } from "@paddock/proto";
import type { Io } from "../io.js";
import { followSteps } from "../run/steps-tail.js";
import { jsonDisplay } from "./json.js";
import { linesDisplay } from "./lines.js";
import { liveDisplay } from "./live.js";
import { milestoneWatcher } from "./milestones.js";

/** Something that happened beside the steps. `kind` is stable: programs read it. */
export interface RunEvent {
  readonly kind:
    | "started"
    | "worker-exit"
    | "worker-restart"
    | "draining"
    | "evaluation"
    | "checkpoint"
    | "result"
    | "error";
  /** For people; one line, or several. */
  readonly message: string;
  /** For programs. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

export interface Display {
  /** The run now. Called after every commit and every other change. */
  update(run: Run): void;
  event(event: RunEvent): void;
  /** Leaves the terminal as it should stay. Nothing may be shown after. */
  close(): void;
}

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
