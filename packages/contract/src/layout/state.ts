/** What a run keeps between steps, and in which layout: the same everywhere that shards, saves or counts it. */
import type { RunSpec } from "../spec/run.js";
import { type Layout, layoutOf, type Unit } from "./layout.js";

/** Student, AdamW's moments, EMA teacher; and a teacher that does not follow the student. */
export const stateKinds = ["student", "m", "v", "teacher", "frozen"] as const;
export type StateKind = (typeof stateKinds)[number];

export function isStateKind(kind: string): kind is StateKind {
  return (stateKinds as readonly string[]).includes(kind);
}

/** The spec that describes the frozen teacher's network: the distillation teacher's own, else the student's. */
export function frozenSpecOf<S extends Pick<RunSpec, "model" | "heads" | "distillation">>(
  spec: S,
): S {
  const { distillation } = spec;
  return distillation ? { ...spec, model: distillation.model, heads: distillation.heads } : spec;
}

/** Units of the frozen teacher: a distillation teacher whole, a gram teacher's backbone; none without one. */
export function frozenUnitsOf(spec: RunSpec): readonly Unit[] {
  if (spec.distillation) return layoutOf(frozenSpecOf(spec)).units;
  if (spec.loss.gram?.teacher !== "frozen") return [];
  return layoutOf(spec).units.filter(({ submodule }) => submodule === "backbone");
}

export interface StatePart {
  readonly kind: StateKind;
  readonly units: readonly Unit[];
  /** Part of checkpoints. A distillation teacher never changes and is read where it came from. */
  readonly saved: boolean;
}

/** The run's state: 16 bytes per parameter, and 4 per parameter of a frozen teacher. */
export function statePartsOf(spec: RunSpec, layout: Layout = layoutOf(spec)): StatePart[] {
  return stateKinds.map((kind) =>
    kind === "frozen"
      ? { kind, units: frozenUnitsOf(spec), saved: spec.distillation === null }
      : { kind, units: layout.units, saved: true },
  );
}

/** Whether the frozen gram teacher becomes a copy of the EMA teacher after `step` (dinov3 train.py: it + 1 counts). */
export function gramUpdateDue(spec: RunSpec, step: number): boolean {
  const update = spec.loss.gram?.teacher === "frozen" ? spec.loss.gram.update : null;
  if (!update) return false;
  const { first, every, max } = update;
  const done = step + 1;
  if (done < first || done % every !== 0) return false;
  const before = Math.floor((done - 1) / every) - Math.floor((Math.max(first, 1) - 1) / every);
  return max === null || before < max;
}
