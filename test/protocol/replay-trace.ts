/** One process's trace given to its pure machine again: the same effects and the same state must come of every event. */
import { basename } from "node:path";
import { digestsOf, readTrace, type TraceEvent, type TraceHead } from "@paddock/service-kit";
import { Violation } from "./violation.js";

type Effects = readonly { readonly kind: string }[];

/** A machine while its trace is replayed. */
export interface Replayer {
  /** The initial turn, as it was digested. */
  readonly first: { readonly state: unknown; readonly effects: Effects };
  /** Lets the machine deal with an event. */
  decide(
    event: unknown,
    now: number | null,
  ): { readonly state: unknown; readonly effects: Effects };
  /** Looks at what came of the last event; @param violate is told of every invariant that is broken */
  check(violate: (what: string) => void): void;
}

/** @returns what differs, or is broken, by event; empty: nothing */
export async function replayTrace<R extends Replayer>(
  path: string,
  replayerOf: (head: TraceHead) => R,
): Promise<{ readonly replayer: R; readonly events: number; readonly violations: string[] }> {
  const violations: string[] = [];
  let replayer: R | undefined;
  let events = 0;
  for await (const line of readTrace(path)) {
    if ("initial" in line) {
      replayer = replayerOf(line);
      const why = differenceOf(line, replayer.first);
      if (why !== undefined) violations.push(`${basename(path)}, initial state: ${why}`);
    } else if (replayer) {
      events++;
      const where = `${basename(path)}, event ${line.n} (${nameOf(line.event)})`;
      const difference = differing(line, events, replayer);
      if (difference !== undefined) {
        // What follows would differ too.
        violations.push(`${where}: ${difference}`);
        break;
      }
      replayer.check((what) => violations.push(`${where}: ${what}`));
    }
  }
  if (!replayer) throw new RangeError(`${path}: expected the head of a trace, received none`);
  return { replayer, events, violations };
}

/** Turns a broken demand into a report. */
export function reporting(violate: (what: string) => void, check: () => void): void {
  try {
    check();
  } catch (thrown) {
    if (!(thrown instanceof Violation)) throw thrown;
    violate(thrown.message);
  }
}

function differing(line: TraceEvent, count: number, replayer: Replayer): string | undefined {
  if (line.n !== count) return `expected event ${count}: one is missing or there twice`;
  try {
    return differenceOf(line, replayer.decide(line.event, line.now));
  } catch (error) {
    return `the machine throws: ${String(error)}`;
  }
}

function differenceOf(
  recorded: Pick<TraceEvent, "effects" | "state">,
  turn: { readonly state: unknown; readonly effects: Effects },
): string | undefined {
  const { effects, state } = digestsOf(turn);
  for (let i = 0; i < Math.max(effects.length, recorded.effects.length); i++) {
    if (effects[i] === recorded.effects[i]) continue;
    const [was, is] = [recorded.effects[i] ?? "none", effects[i] ?? "none"];
    return `effect ${i + 1} differs: expected ${was} as recorded, received ${is}`;
  }
  if (state === recorded.state) return undefined;
  return `the state differs: expected ${recorded.state} as recorded, received ${state}`;
}

/** "prepared", or "message decision" for what a worker hears. */
function nameOf(event: unknown): string {
  const { kind, message } = event as { kind: string; message?: { kind?: string } };
  return message?.kind === undefined ? kind : `${kind} ${message.kind}`;
}
