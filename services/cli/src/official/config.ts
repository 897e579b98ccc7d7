/** Official config files as trees: reading, merging and walking them as OmegaConf does. */
import { PaddockError } from "@paddock/contract";
import { parseDocument } from "yaml";
import type { Override } from "../spec/overrides.js";

/** What a config file can hold. Integers beyond 2^53 are bigints: DINOv3's `keep_every` is one. */
export type Config =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Config[]
  | { readonly [key: string]: Config };
export type ConfigTree = { readonly [key: string]: Config };

export function isTree(value: unknown): value is ConfigTree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Parses YAML as OmegaConf reads it: True, 5.0e-05 and 1e-3 are what they look like. What YAML 1.1 has beyond that (yes, no) is
 * left to who reads the value; the parser's own 1.1 takes the folder "." for a number.
 * Errors: `invalid-spec` with the place.
 */
export function parseConfig(text: string, where: string): Config {
  const document = parseDocument(text, { merge: true, intAsBigInt: true, prettyErrors: true });
  const [error] = document.errors;
  if (error) {
    throw new PaddockError(
      "invalid-spec",
      `${where}: expected YAML, received something else: ${error.message}`,
      { cause: error },
    );
  }
  return plain(document.toJS(), where);
}

function plain(value: unknown, where: string): Config {
  if (Array.isArray(value)) return value.map((item) => plain(item, where));
  if (isTree(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, plain(inner, where)]),
    );
  }
  if (typeof value === "bigint") return safe(value);
  if (typeof value === "string" && value.includes("${")) {
    throw new PaddockError(
      "invalid-spec",
      `${where}: expected plain values, received the interpolation "${value}"; write its value instead`,
    );
  }
  return (value ?? null) as Config;
}

function safe(value: bigint): number | bigint {
  return BigInt.asIntN(54, value) === value ? Number(value) : value;
}

/** Parses `a.b=c` of an official command line; `a.b=` and `a.b` set null. Errors: `invalid-argument`. */
export function parseOfficialOverride(text: string): Override {
  const [, name = "", value = ""] = /^([^=]*)=?([\s\S]*)$/.exec(text) ?? [];
  const path = name.split(".");
  if (path.some((key) => key === "")) {
    throw new PaddockError(
      "invalid-argument",
      `expected an override like train.batch_size_per_gpu=8, received "${text}"`,
    );
  }
  return { path, value: parseConfig(value, text) };
}

/** The tree that overrides stand for, the last one of a key winning. */
export function treeOf(overrides: readonly Override[]): ConfigTree {
  return overrides.reduce<ConfigTree>((tree, { path, value }) => {
    const branch = path.reduceRight<Config>((inner, key) => ({ [key]: inner }), value as Config);
    return merge(tree, branch) as ConfigTree;
  }, {});
}

/** `over` on top of `base`: trees are merged key by key; lists, scalars and nulls replace what was there. */
export function merge(base: Config, over: Config): Config {
  if (!isTree(base) || !isTree(over)) return over;
  const merged: Record<string, Config> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    merged[key] = below === undefined ? value : merge(below, value);
  }
  return merged;
}

/** Dotted paths of everything that is no tree, with their values, in the order of the file. */
export function leaves(tree: Config, prefix = ""): [string, Config][] {
  if (!isTree(tree)) return [[prefix, tree]];
  return Object.entries(tree).flatMap(([key, value]) =>
    leaves(value, prefix === "" ? key : `${prefix}.${key}`),
  );
}

/** The value at a dotted path; undefined when there is none. */
export function lookup(tree: Config, path: string): Config | undefined {
  return path
    .split(".")
    .reduce<Config | undefined>(
      (at, key) => (isTree(at) && Object.hasOwn(at, key) ? at[key] : undefined),
      tree,
    );
}

/** A value as one would write it. */
export function show(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  if (value === "") return "''";
  if (typeof value === "string") return value;
  return JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? String(inner) : inner));
}
