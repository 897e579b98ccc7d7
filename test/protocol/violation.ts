/** An invariant of the protocol is broken in the world that was reached. */
export class Violation extends Error {}

export function demand(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Violation(what);
}
