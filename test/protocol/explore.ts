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
  let [transitions, depth, finished] = [0, 0, 0];
  const result = (violation?: Found): Exploration => ({
    states: seen.size,
    transitions,
    depth,
    finished,
    seconds: (performance.now() - started) / 1000,
    isComplete: stack.length === 0 && !violation,
    violation,
  });
  for (let visit = stack.pop(); visit; visit = stack.pop()) {
    let path = visit.path;
    try {
      const next = transitionsOf(visit.world);
      checkState(visit.world, bounds, next.length);
      if (isOver(visit.world)) finished++;
      for (const { name, take } of isOver(visit.world) ? [] : next) {
        path = { name, before: visit.path };
        const world = take();
        transitions++;
        const print = fingerprint(world);
        if (seen.has(print)) continue;
        seen.add(print);
        if (seen.size % 50_000 === 0) o.onProgress?.(seen.size);
        depth = Math.max(depth, visit.depth + 1);
        stack.push({ world, path, depth: visit.depth + 1 });
      }
    } catch (thrown) {
      const what = thrown instanceof Violation ? thrown.message : `thrown: ${String(thrown)}`;
      return result({ what, trace: traceOf(path) });
    }
    if (seen.size >= o.maxStates) return result();
  }
  return result();
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
  const crashes = world.crashes;
  if (faults === world.faults) demand(rollbacks === 0, "without a fault nothing is taken back");
  if (redundancy === "shadow" && crashes === 0) {
    demand(rollbacks === 0, "with shadows and all processes alive nothing is taken back");
  }
  if (redundancy === "shadow" && faults - world.faults <= 1) {
    demand(rollbacks === 0, "with shadows one fault takes nothing back");
  }
}

function traceOf(path: Path | undefined): string[] {
  const names: string[] = [];
  for (let at = path; at; at = at.before) names.push(at.name);
  return names.reverse();
}
