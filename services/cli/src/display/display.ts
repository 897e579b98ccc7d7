/** What a run shows while it lives: the interface that all forms of it share. */
import type { Run } from "@paddock/proto";

/** Something that happened beside the steps. `kind` is stable: programs read it. */
export interface RunEvent {
  readonly kind:
    | "started"
    | "worker-exit"
    | "worker-restart"
    | "draining"
    | "evaluation"
    | "checkpoint"
    | "alert"
    | "guard"
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
