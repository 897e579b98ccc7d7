/** Reading a golden file's config so that an option nobody knows is an error, not something silently left out. */

/** @throws RangeError on a key that is not in `known` */
export function onlyKnown(what: string, config: object, known: readonly string[]): void {
  for (const key of Object.keys(config)) {
    if (!known.includes(key)) {
      throw new RangeError(`${what}: expected only ${known.join(", ")}; received ${key}`);
    }
  }
}

/** Entries of a config that are settings of one variant each, by name. */
export function variantsOf<T>(config: Record<string, T>): [string, T][] {
  return Object.entries(config).filter(([, value]) => typeof value === "object" && value !== null);
}
