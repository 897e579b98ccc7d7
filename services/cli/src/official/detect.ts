/** Which project a config file belongs to. */
import { nearest, PaddockError } from "@paddock/contract";
import { type Config, type ConfigTree, isTree, leaves } from "./config.js";
import { dinov2Defaults } from "./defaults-v2.js";
import { dinov3Defaults } from "./defaults-v3.js";
import { type Family, keyNotes, optionalKeys } from "./keys.js";

export const families: readonly Family[] = ["dinov2", "dinov3"];

export const defaultsOf: Readonly<Record<Family, ConfigTree>> = {
  dinov2: dinov2Defaults,
  dinov3: dinov3Defaults,
};

const inDefaults = (family: Family): Set<string> =>
  new Set([...leaves(defaultsOf[family]).map(([path]) => path), ...optionalKeys[family]]);

/** Every key that a project's configs may hold, as dotted paths. */
export function knownKeys(family: Family): Set<string> {
  return new Set([...inDefaults(family), ...Object.keys(keyNotes[family])]);
}

/**
 * The project whose keys `layers` hold. Keys that only old DINOv3 configs carry over from DINOv2 do not count against DINOv3.
 * Errors: `invalid-argument` when only shared keys, or keys of both, are there.
 */
export function detectFamily(layers: Config): Family {
  const paths = leaves(layers).map(([path]) => path);
  const [two, three] = [inDefaults("dinov2"), inDefaults("dinov3")];
  const onlyTwo = paths.filter((path) => two.has(path) && !three.has(path));
  const onlyThree = paths.filter((path) => three.has(path) && !two.has(path));
  const carried = knownKeys("dinov3");
  if (onlyThree.length > 0 && onlyTwo.every((path) => carried.has(path))) return "dinov3";
  if (onlyTwo.length > 0 && onlyThree.length === 0) return "dinov2";
  const why =
    onlyTwo.length === 0
      ? "the file holds only keys that DINOv2 and DINOv3 share"
      : `the file holds keys of DINOv2 (${onlyTwo[0]}) and of DINOv3 (${onlyThree[0]})`;
  throw new PaddockError(
    "invalid-argument",
    `expected a config of DINOv2 or of DINOv3, but ${why}; say which with --official dinov2 or --official dinov3`,
  );
}

/** Whether a config is one of Paddock's own run specs. */
export function isRunSpec(config: unknown): boolean {
  const own = "steps batchPerRank logicalRanks model heads data masks loss optimizer fleet".split(
    " ",
  );
  return isTree(config) && own.some((key) => Object.hasOwn(config, key));
}

/** Keys of `layers` that the project does not know, each with the nearest one that it does. */
export function unknownKeys(layers: Config, family: Family): { key: string; remedy: string }[] {
  const known = [...knownKeys(family)];
  return leaves(layers)
    .map(([path]) => path)
    .filter((path) => !accepted(path, known))
    .map((key) => ({ key, remedy: remedyFor(key, known) }));
}

/** A null or empty tree may stand where keys would be. */
function accepted(path: string, known: readonly string[]): boolean {
  return known.some((key) => key === path || key.startsWith(`${path}.`));
}

function remedyFor(key: string, known: readonly string[]): string {
  const last = key.slice(key.lastIndexOf(".") + 1);
  const moved = known.find((candidate) => candidate.endsWith(`.${last}`));
  const guess = moved ?? nearest(key, known);
  return guess === undefined ? "remove it" : `did you mean ${guess}?`;
}
