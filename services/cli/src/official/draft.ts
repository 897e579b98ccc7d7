/** A recipe in the making: typed reads of the merged config, and what there is to say about it. */
import { PaddockError } from "@paddock/contract";
import { type Config, type ConfigTree, lookup, show } from "./config.js";
import type { Family, NoteKind } from "./keys.js";

/** What the official code takes from its launcher, and what only this machine knows. */
export interface OfficialOptions {
  /** Name of the run. */
  readonly name: string;
  readonly logicalRanks: number;
  readonly workers: number;
  /** Decoding threads that one worker may have. */
  readonly maxThreads: number;
  /** null: what the config says. */
  readonly precision: "fp32" | "bf16" | "fp16" | null;
  /** Why fp32 computes where the config says something else, when no precision is asked for; null: it does not. */
  readonly fp32Because: string | null;
  /** Folder of the training images, absolute; null: the config's. */
  readonly data: string | null;
  readonly exists: (path: string) => boolean;
  /** Another config file: its tree. Errors: `not-found`. */
  readonly read: (path: string) => Config;
}

/** A value of the run spec that is computed from several keys. */
export interface DerivedRow {
  readonly key: string;
  readonly value: unknown;
  readonly formula: string;
}

export interface RecipeWarning {
  readonly key: string;
  readonly kind: NoteKind | "note";
  readonly message: string;
}

export class Draft {
  readonly family: Family;
  readonly options: OfficialOptions;
  readonly derived: DerivedRow[] = [];
  readonly warnings: RecipeWarning[] = [];
  /** What keeps the run from starting here, each with its remedy; the recipe is printed all the same. */
  readonly blockers: string[] = [];
  /** Keys that took part. */
  readonly used = new Set<string>();
  readonly #config: ConfigTree;

  constructor(family: Family, config: ConfigTree, options: OfficialOptions) {
    this.family = family;
    this.options = options;
    this.#config = config;
  }

  get(path: string): Config | undefined {
    this.used.add(path);
    return lookup(this.#config, path);
  }

  has(path: string): boolean {
    return lookup(this.#config, path) !== undefined;
  }

  number(path: string): number {
    const value = this.get(path);
    if (typeof value === "number") return value;
    if (typeof value === "bigint") return Number(value);
    if (typeof value === "string" && value.trim() !== "" && Number.isFinite(Number(value))) {
      return Number(value);
    }
    throw this.wrong(path, "a number", `set ${path}=<number>`);
  }

  /** null where the config has null or nothing. */
  optionalNumber(path: string): number | null {
    return (this.get(path) ?? null) === null ? null : this.number(path);
  }

  boolean(path: string): boolean {
    const value = this.get(path);
    if (typeof value === "boolean") return value;
    // Booleans of YAML 1.1, which the official code's parser follows.
    if (typeof value === "string" && /^(yes|on)$/i.test(value)) return true;
    if (typeof value === "string" && /^(no|off)$/i.test(value)) return false;
    throw this.wrong(path, "true or false", `set ${path}=false`);
  }

  /** Empty where the config has null or nothing. */
  text(path: string): string {
    const value = this.get(path) ?? "";
    if (typeof value === "string") return value;
    return show(value);
  }

  /** What a table has for the value. */
  choice<T>(path: string, table: Readonly<Record<string, T>>, remedy?: string): T {
    const value = this.text(path);
    const found = Object.hasOwn(table, value) ? table[value] : undefined;
    if (found !== undefined) return found;
    const names = Object.keys(table).join(", ");
    throw this.wrong(path, `one of ${names}`, remedy ?? `set ${path} to one of them`);
  }

  pair(path: string): [number, number] {
    const [low, high, ...rest] = this.numbers(path);
    if (low !== undefined && high !== undefined && rest.length === 0) return [low, high];
    throw this.wrong(path, "two numbers", `set ${path}=[low,high]`);
  }

  /** A list of numbers; one number is a list of one, null of none. */
  numbers(path: string): number[] {
    const value = this.get(path) ?? null;
    if (value === null) return [];
    const list = Array.isArray(value) ? value : [value];
    if (list.every((item) => typeof item === "number")) return list;
    throw this.wrong(path, "numbers", `set ${path}=[...]`);
  }

  /** A key that counts epochs of OFFICIAL_EPOCH_LENGTH, in steps. */
  epochs(path: string): number {
    const steps = this.number(path) * this.number("train.OFFICIAL_EPOCH_LENGTH");
    if (Number.isSafeInteger(Math.round(steps)) && Math.abs(steps - Math.round(steps)) < 1e-6) {
      return Math.round(steps);
    }
    throw this.wrong(
      path,
      "a whole number of steps when multiplied by train.OFFICIAL_EPOCH_LENGTH",
      `choose ${path} so that it is`,
    );
  }

  /** Notes a derived value, in place of an earlier one of that key, and returns it. */
  derive<T>(key: string, value: T, formula: string): T {
    const row = { key, value, formula };
    const at = this.derived.findIndex((earlier) => earlier.key === key);
    if (at < 0) this.derived.push(row);
    else this.derived[at] = row;
    return value;
  }

  warn(key: string, kind: RecipeWarning["kind"], message: string): void {
    this.warnings.push({ key, kind, message });
  }

  /** Refuses the config unless `holds`. */
  demand(holds: boolean, path: string, expected: string, remedy: string): void {
    if (!holds) throw this.wrong(path, expected, remedy);
  }

  wrong(path: string, expected: string, remedy: string): PaddockError {
    const value = this.get(path);
    const received = value === undefined ? "nothing" : show(value);
    return new PaddockError(
      "invalid-spec",
      `${path}: expected ${expected}, received ${received}; ${remedy}`,
    );
  }
}

/** `<PATH/TO/...>` and `ignore`: what shipped configs hold where a path is to be filled in. */
export function isPlaceholder(path: string): boolean {
  return path === "ignore" || /^<.*>$/.test(path);
}
