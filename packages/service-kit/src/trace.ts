/**
 * Traces of the protocol: with PADDOCK_TRACE=<folder> every process writes `<folder>/<role>-<pid>-<n>.jsonl`. The first line says from what
 * the initial state is made; each further one is an event, with digests of the effects and of the state that the pure machine made of it.
 * `npm run check:protocol -- --replay <folder>` gives the events to the machine again.
 */
import { appendFileSync, createReadStream, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { env, pid } from "node:process";
import { createInterface } from "node:readline";
import { PaddockError } from "@paddock/contract";
import { digestOf, fromJson, toJson } from "./trace-values.js";

export type TraceRole = "coordinator" | "worker";

/** What a machine makes of an event, or begins with. */
export interface TracedTurn {
  readonly state: unknown;
  readonly effects: readonly { readonly kind: string }[];
}

export interface TraceHead {
  /** Version of the format. */
  readonly trace: 1;
  readonly role: TraceRole;
  readonly pid: number;
  /** The arguments of the function that makes the initial state. */
  readonly initial: unknown;
  /** Digests of the initial turn. */
  readonly effects: readonly string[];
  readonly state: string;
}

export interface TraceEvent {
  /** Counts from 1. */
  readonly n: number;
  readonly event: unknown;
  /** Unix milliseconds that the machine was told; null: it is told none. */
  readonly now: number | null;
  /** "<kind> <digest>" of each effect, in order. */
  readonly effects: readonly string[];
  readonly state: string;
}

export interface Trace {
  /** Call it before the effects are carried out: what a killed process has done then begins with what is in its trace. */
  note(event: unknown, turn: TracedTurn, now?: number): void;
}

/**
 * A new trace in `folder`; undefined without PADDOCK_TRACE. A trace that cannot be written ends with a line on stderr and costs the process
 * nothing else. Lines are not synced: what a killed process has written stays in the system's cache.
 */
export function openTrace(
  role: TraceRole,
  initial: unknown,
  turn: TracedTurn,
  folder = tracedFolder,
): Trace | undefined {
  if (!folder) return undefined;
  let path: string | undefined;
  let n = 0;
  const attempt = (write: () => void): void => {
    try {
      write();
    } catch (error) {
      path = undefined;
      process.stderr.write(`PADDOCK_TRACE: the trace ends at event ${n}: ${String(error)}\n`);
    }
  };
  attempt(() => {
    const head: TraceHead = { trace: 1, role, pid, initial: toJson(initial), ...digestsOf(turn) };
    path = createFile(folder, `${role}-${pid}`, lineOf(head));
  });
  return {
    note(event, made, now) {
      if (path === undefined) return;
      const file = path;
      n++;
      attempt(() => {
        const own = { n, event: toJson(event), now: now ?? null };
        const line: TraceEvent = { ...own, ...digestsOf(made) };
        appendFileSync(file, lineOf(line));
      });
    },
  };
}

/** How a turn stands in a trace. */
export function digestsOf({ state, effects }: TracedTurn): Pick<TraceEvent, "effects" | "state"> {
  return {
    effects: effects.map((effect) => `${effect.kind} ${digestOf(effect)}`),
    state: digestOf(state),
  };
}

/**
 * The lines of a trace, values as they were when they were written. A last line that is cut off, by a kill, is left out.
 * @throws PaddockError `invalid-argument` for a file that is no trace
 */
export async function* readTrace(path: string): AsyncGenerator<TraceHead | TraceEvent> {
  const lines = createInterface({ input: createReadStream(path) });
  let number = 0;
  let broken: number | undefined;
  for await (const line of lines) {
    number++;
    if (broken !== undefined) throw noTrace(path, broken);
    const parsed = parse(line);
    if (parsed === undefined) broken = number;
    else yield parsed;
  }
  if (number === 0 || broken === 1) throw noTrace(path, 1);
}

function parse(line: string): TraceHead | TraceEvent | undefined {
  try {
    const parsed = JSON.parse(line) as TraceHead | TraceEvent;
    if ("initial" in parsed) return { ...parsed, initial: fromJson(parsed.initial) };
    return { ...parsed, event: fromJson(parsed.event) };
  } catch {
    return undefined;
  }
}

function noTrace(path: string, line: number): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `${path}, line ${line}: expected a line of a trace that PADDOCK_TRACE made, received something else`,
  );
}

/** Process ids come again, and a process may have several runs: never overwrites a trace. */
function createFile(folder: string, name: string, text: string): string {
  mkdirSync(folder, { recursive: true });
  for (let n = 0; ; n++) {
    const path = join(folder, `${name}-${n}.jsonl`);
    try {
      writeFileSync(path, text, { flag: "wx", mode: 0o600 });
      return path;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}

function lineOf(value: TraceHead | TraceEvent): string {
  return `${JSON.stringify(value)}\n`;
}

// biome-ignore lint/style/noProcessEnv: a switch for checks of the protocol, of no concern to the run
const tracedFolder = env["PADDOCK_TRACE"];
