/** What a run shows while it lives. Three forms: redrawn on a terminal, lines elsewhere, JSON for programs. */
import type { Run } from "@paddock/proto";
import type { Io } from "../io.js";
import { jsonDisplay } from "./json.js";
import { linesDisplay } from "./lines.js";
import { liveDisplay } from "./live.js";

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

export function openDisplay(io: Io, json: boolean): Display {
  if (json) return jsonDisplay(io);
  return io.isTerminal ? liveDisplay(io) : linesDisplay(io);
}
