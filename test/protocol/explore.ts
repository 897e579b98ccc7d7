/**
 * Breadth first through all worlds that can be reached within the bounds: the first violation is found with a shortest way to it.
 * At the end, and only if all was seen: from every world the run's end can be reached without another fault.
 */
import type { Effect } from "@paddock/coordinator";
import { type Action, allActions, passTime } from "./model/actions.js";
import { Keys } from "./model/key.js";
import {
  type Bounds,
  type Context,
  contextOf,
  type Draft,
  initialWorld,
  spend,
  Violation,
  type World,
} from "./model/world.js";
import { Graph } from "./graph.js";
import type { Subject } from "./subject.js";

export interface Exploration {
  readonly bounds: Bounds;
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  /** Everything within the bounds was seen. */
  readonly complete: boolean;
  readonly seconds: number;
  readonly violation: { readonly message: string; readonly trace: readonly string[] } | null;
}

interface Successor {
  readonly label: string;
  readonly isFault: boolean;
  readonly world: World;
  readonly key: string;
}

export function explore(subject: Subject, bounds: Bounds): Exploration {
  const started = performance.now();
  const search = new Search(contextOf(subject, bounds), bounds);
  const violation = search.run();
  const { states, transitions, depth, complete } = search;
  const seconds = (performance.now() - started) / 1000;
  return { bounds, states, transitions, depth, complete, seconds, violation };
}

class Search {
  transitions = 0;
  depth = 0;
  complete = true;
  readonly #context: Context;
  readonly #bounds: Bounds;
  readonly #keys: Keys;
  readonly #seen = new Map<string, number>();
  readonly #graph = new Graph();

  constructor(context: Context, bounds: Bounds) {
    this.#context = context;
    this.#bounds = bounds;
    this.#keys = new Keys(bounds.spec.fleet.leaseSeconds * 1000);
  }

  get states(): number {
    return this.#seen.size;
  }

  run(): Exploration["violation"] {
    const first = initialWorld(this.#context);
    this.#seen.set(this.#keys.of(first), 0);
    this.#graph.add(-1, 0);
    let level: [number, World][] = [[0, first]];
    while (level.length > 0) {
      const next: [number, World][] = [];
      for (const [id, world] of level) {
        const violation = this.#expand(id, world, next);
        if (violation) return violation;
      }
      level = next;
      if (next.length > 0) this.depth++;
    }
    return this.complete ? this.#checkLiveness() : null;
  }

  #expand(id: number, world: World, next: [number, World][]): Exploration["violation"] {
    let ordinal = 0;
    let moves = 0;
    try {
      for (const successor of successors(this.#context, this.#keys, world)) {
        this.transitions++;
        if (!successor.isFault) moves++;
        this.#visit(id, ordinal, successor, next);
        ordinal++;
      }
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      return { message: error.message, trace: [...this.#trace(id), labelOf(error)] };
    }
    if (isOver(world)) this.#graph.end(id);
    else if (moves === 0) {
      return { message: "deadlock: nothing can move", trace: this.#trace(id) };
    }
    return null;
  }

  #visit(from: number, ordinal: number, to: Successor, next: [number, World][]): void {
    const known = this.#seen.get(to.key);
    if (known !== undefined) {
      if (!to.isFault) this.#graph.connect(from, known);
      return;
    }
    if (this.#seen.size >= this.#bounds.maxStates) {
      this.complete = false;
      return;
    }
    const id = this.#seen.size;
    this.#seen.set(to.key, id);
    this.#graph.add(from, ordinal);
    if (!to.isFault) this.#graph.connect(from, id);
    next.push([id, to.world]);
  }

  #checkLiveness(): Exploration["violation"] {
    const lost = this.#graph.firstThatCannotEnd();
    if (lost === undefined) return null;
    return { message: "liveness: from here the run cannot end any more", trace: this.#trace(lost) };
  }

  /** What happened on the way to a world: done again from the start. */
  #trace(id: number): string[] {
    const labels: string[] = [];
    let world = initialWorld(this.#context);
    for (const ordinal of this.#graph.wayTo(id)) {
      let at = 0;
      for (const successor of successors(this.#context, this.#keys, world)) {
        if (at === ordinal) {
          labels.push(successor.label);
          world = successor.world;
          break;
        }
        at++;
      }
    }
    return labels;
  }
}

const labels = new WeakMap<Violation, string>();

function labelOf(violation: Violation): string {
  return labels.get(violation) ?? "?";
}

/** The run has ended, and nobody is left. */
function isOver({ coordinator, workers }: World): boolean {
  return coordinator !== null && coordinator.outcome !== null && workers.every((w) => !w.alive);
}

function* successors(context: Context, keys: Keys, world: World): Generator<Successor> {
  const own = keys.of(world);
  let moves = 0;
  for (const action of allActions(context, world)) {
    for (const next of outcomes(context, world, action)) {
      const key = keys.of(next.world);
      if (key === own) continue;
      if (!next.isFault) moves++;
      yield { ...next, key };
    }
  }
  const isStuck = world.workers.some(({ alive, paused }) => alive && paused);
  const isLive = world.coordinator !== null && world.coordinator.outcome === null;
  if (!isLive || (moves > 0 && !isStuck)) return;
  const later = { label: "a lease passes", isFault: false };
  const passed = attempt(world, later.label, (draft) => passTime(context, draft));
  const key = keys.of(passed);
  if (key !== own) yield { ...later, world: passed, key };
}

/** The action done; and, while faults are left, done up to a crash of the coordinator after each effect that others see. */
function* outcomes(
  context: Context,
  world: World,
  action: Action,
): Generator<Omit<Successor, "key">> {
  const { label, isFault, run } = action;
  let effects: readonly Effect[] | undefined;
  const done = attempt(world, label, (draft) => {
    effects = run(draft);
  });
  yield { label, isFault, world: done };
  const mayCrash = world.faultsLeft > 0 && context.bounds.kinds.includes("coordinator-crash");
  if (!effects || !mayCrash) return;
  for (const count of crashPoints(effects)) {
    const crashed = attempt(world, label, (draft) => {
      spend(draft, "coordinator-crash");
      run(draft, count);
    });
    const where = `${label}; FAULT the coordinator crashes after effect ${count} of ${effects.length}`;
    yield { label: where, isFault: true, world: crashed };
  }
}

/** After each effect that others can see, but not after the last of them: that is a crash of its own. */
function crashPoints(effects: readonly Effect[]): number[] {
  const seen = new Set(["append", "send", "dismiss", "segments"]);
  const points = effects.flatMap(({ kind }, i) => (seen.has(kind) ? [i + 1] : []));
  return points.slice(0, -1);
}

function attempt(world: World, label: string, run: (draft: Draft) => void): World {
  const draft: Draft = { ...world };
  try {
    run(draft);
  } catch (error) {
    if (error instanceof Violation) labels.set(error, label);
    throw error;
  }
  return draft;
}
