/** Flags that stand for fields of the run spec, and flags that only official configs know. */
import { resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import type { Override } from "./overrides.js";

export interface SpecFieldFlags {
  readonly workers?: number;
  readonly steps?: number;
  readonly seed?: number;
  readonly engine?: string;
  readonly exchangeDtype?: string;
  readonly data?: string;
}

/** The fields of the spec that flags stand for. */
export function flagOverrides(flags: SpecFieldFlags, cwd: string): Override[] {
  const fields: [string, unknown][] = [
    ["fleet.workers", flags.workers],
    ["steps", flags.steps],
    ["seed", flags.seed],
    ["engine.name", flags.engine],
    ["exchange.dtype", flags.exchangeDtype],
    ["data.path", flags.data === undefined ? undefined : resolve(cwd, flags.data)],
  ];
  return fields
    .filter(([, value]) => value !== undefined)
    .map(([path, value]) => ({ path: path.split("."), value }));
}

/** Flags that say what an official config leaves to its launcher, beside those that run specs have too. */
export interface OfficialOnlyFlags {
  readonly official?: "dinov2" | "dinov3";
  readonly allowUnknown?: boolean;
  readonly logicalRanks?: number;
  readonly precision?: "fp32" | "bf16" | "fp16";
}

/** A run spec says itself what these flags would. Errors: `invalid-argument`. */
export function refuseOfficialFlags(flags: OfficialOnlyFlags): void {
  const remedies: [string, unknown, string][] = [
    ["--official", flags.official, "leave it out"],
    ["--allow-unknown", flags.allowUnknown, "remove the unknown keys"],
    ["--logical-ranks", flags.logicalRanks, "set logicalRanks=..."],
    ["--precision", flags.precision, "set engine.precision=..."],
  ];
  const given = remedies.find(([, value]) => value !== undefined);
  if (given === undefined) return;
  throw new PaddockError(
    "invalid-argument",
    `${given[0]}: expected only with an official config (--config), received with a run spec; ${given[2]}`,
  );
}
