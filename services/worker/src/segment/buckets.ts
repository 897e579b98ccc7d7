/** Which units' gradients travel together: fewer tickets for small units, early sending for large ones. */
import type { Layout, Unit } from "@paddock/contract";

export interface Bucket {
  readonly key: string;
  readonly units: readonly Unit[];
}

/**
 * Units in the order in which backward finishes them (`order`), cut after every unit at which at least `minElements`
 * have come together. A pure function of the layout: sender and receiver agree without talking.
 */
export function bucketsOf(layout: Layout, order: readonly string[], minElements: number): Bucket[] {
  const byName = new Map(layout.units.map((unit) => [unit.name, unit]));
  const buckets: Bucket[] = [];
  let units: Unit[] = [];
  let elements = 0;
  const close = (): void => {
    if (units.length > 0) buckets.push({ key: `grad.${buckets.length}`, units });
    units = [];
    elements = 0;
  };
  for (const name of order) {
    const unit = byName.get(name);
    if (!unit) continue;
    units.push(unit);
    elements += unit.elements;
    if (elements >= minElements) close();
  }
  close();
  return buckets;
}

/** Backward's order: heads first, then the final norm, blocks from the top, embedding last. */
export function backwardOrder(layout: Layout): string[] {
  const names = layout.units.map((unit) => unit.name);
  const heads = names.filter((name) => name.endsWith("_head"));
  const trunk = names.filter((name) => !name.endsWith("_head")).reverse();
  return [...heads, ...trunk];
}
