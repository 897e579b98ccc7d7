/** Explicit-state exploration: every order of everything that can happen, within bounds. */
import { fingerprint } from "./fingerprint.js";
import { isOver, transitionsOf } from "./transitions.js";
import { demand, Violation } from "./violation.js";
import { type Bounds, initialWorld, type World } from "./world.js";

export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  /** Longest path that was followed. */
  readonly depth: number;
  readonly finished: number;
  readonly seconds: number;
  /** Every state within the bounds was reached; else `maxStates` ended it. */
  readonly isComplete: boolean;
  readonly violation: Found | undefined;
}

export interface Found {
  readonly what: string;
  /** What happened, in order. */
  readonly trace: readonly string[];
}

interface Visit {
  readonly world: World;
  readonly path: Path | undefined;
  readonly depth: number;
}

/** The way to a state, from its end. */
interface Path {
  readonly name: string;
  readonly before: Path | undefined;
}

/** Depth first, so that whole runs are seen early. */
export function explore(
  bounds: Bounds,
  o: { readonly maxStates: number; readonly onProgress?: (states: number) => void },
): Exploration {
  const started = performance.now();
  const first = initialWorld(bounds);
  const seen = new Set([fingerprint(first)]);
  const stack: Visit[] = [{ world: first, path: undefined, depth: 0 }];
  const counts = { transitions: 0, depth: 0, finished: 0 };
  let violation: Found | undefined;
  for (let visit = stack.pop(); visit && !violation; visit = stack.pop()) {
    const expanded = expand(visit, bounds);
    violation = expanded.violation;
    counts.finished += isOver(visit.world) ? 1 : 0;
    counts.transitions += expanded.next.length;
    for (const next of expanded.next) {
      const print = fingerprint(next.world);
      if (seen.has(print)) continue;
      seen.add(print);
      if (seen.size % 50_000 === 0) o.onProgress?.(seen.size);
      counts.depth = Math.max(counts.depth, next.depth);
      stack.push(next);
    }
    if (seen.size >= o.maxStates) break;
  }
  const seconds = (performance.now() - started) / 1000;
  const isComplete = stack.length === 0 && !violation;
  return { states: seen.size, ...counts, seconds, isComplete, violation };
}

/** All that can follow, unless an invariant is broken here or on the way there. */
function expand(
  { world, path, depth }: Visit,
  bounds: Bounds,
): { readonly next: readonly Visit[]; readonly violation?: Found } {
  const next: Visit[] = [];
  let at = path;
  try {
    const choices = transitionsOf(world);
    checkState(world, bounds, choices.length);
    for (const { name, take } of isOver(world) ? [] : choices) {
      at = { name, before: path };
      next.push({ world: take(), path: at, depth: depth + 1 });
    }
    return { next };
  } catch (thrown) {
    const what = thrown instanceof Violation ? thrown.message : `thrown: ${String(thrown)}`;
    return { next, violation: { what, trace: traceOf(at) } };
  }
}

function checkState(world: World, { redundancy, faults }: Bounds, choices: number): void {
  const { coordinator, durable, spec, rollbacks } = world;
  const outcome = coordinator?.outcome;
  if (outcome) {
    demand(outcome.kind === "finished", `the run ends finished, not ${JSON.stringify(outcome)}`);
    demand(durable.next === spec.steps, "a finished run has committed all its steps");
    demand(durable.checkpoints.at(-1)?.step === spec.steps, "its last checkpoint is durable");
    return;
  }
  demand(choices > 0, "something can happen as long as the run has not ended");
  const used = faults - world.faults;
  if (used === 0) demand(rollbacks === 0, "without a fault nothing is taken back");
  if (world.excuses === 0) {
    demand(rollbacks === 0, "broken streams and dead coordinators take nothing back");
  }
  if (redundancy === "shadow" && used <= 1) {
    demand(rollbacks === 0, "with shadows one fault takes nothing back");
  }
}

function traceOf(path: Path | undefined): string[] {
  const names: string[] = [];
  for (let at = path; at; at = at.before) names.push(at.name);
  return names.reverse();
}
