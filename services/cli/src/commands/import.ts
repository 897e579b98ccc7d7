/** `paddock import <file>`: what a file of weights is, the spec that fits it, and whether it loads. */
import { resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { convertWeights, describeWeights, type WeightsDescription } from "@paddock/worker";
import { stringify } from "yaml";
import { count } from "../display/format.js";
import type { Io } from "../io.js";
import { loadSpec } from "../spec/load-spec.js";

export interface ImportFlags {
  readonly file: string;
  readonly spec?: string;
  readonly out?: string;
  readonly grid?: number;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Returns the exit code. */
export async function importCommand(flags: ImportFlags, io: Io): Promise<number> {
  if (flags.grid !== undefined && flags.out === undefined) {
    throw new PaddockError("invalid-argument", "--grid: expected --out with it, received none");
  }
  const path = resolve(io.cwd, flags.file);
  const spec =
    flags.spec === undefined ? undefined : await loadSpec(resolve(io.cwd, flags.spec), []);
  const described = await describeWeights(path, spec);
  const out = flags.out === undefined ? undefined : resolve(io.cwd, flags.out);
  if (out !== undefined) {
    await convertWeights({ path, out, grid: flags.grid, force: flags.force ?? false });
  }
  io.out(flags.json ? json(described, out) : text(described, out, flags.spec));
  return 0;
}

function json({ detected, ...rest }: WeightsDescription, out: string | undefined): string {
  const { dialect, headsFrom, shape } = detected;
  return `${JSON.stringify({ ...rest, dialect, headsFrom, shape, out: out ?? null })}\n`;
}

function text(
  described: WeightsDescription,
  out: string | undefined,
  spec: string | undefined,
): string {
  const { path, title, model, cropSize, leftOut, initial } = described;
  const crops = cropSize === null ? {} : { crops: { global: { size: cropSize } } };
  const lines = [
    `${title}, ${count(described.parameters)} parameters`,
    ...assumptions(described),
    ...(leftOut.length > 0
      ? [`left out: ${leftOut.length} tensors of heads (${leftOut[0]}, ...)`]
      : []),
    ...(initial.length > 0 ? [`from the seed, as the file has none: ${initial.join(", ")}`] : []),
    spec === undefined
      ? "loads completely into this spec:"
      : `loads completely into ${spec}; its own:`,
    stringify({ model, ...crops, init: { checkpoint: path, load: "backbone" } }).trimEnd(),
    ...(out === undefined ? [] : [`written with official names: ${out}`]),
  ];
  return `${lines.join("\n")}\n`;
}

/** What no tensor shows, where no config.json says it either. */
function assumptions({ detected, saysNormEps }: WeightsDescription): string[] {
  const { headsFrom, shape } = detected;
  const lines: string[] = [];
  if (headsFrom === "head width 64") {
    lines.push(
      `model.heads ${shape.heads}: assumed from a head width of 64; no config.json says it`,
    );
  }
  if (!saysNormEps) {
    lines.push("model.normEps: assumed to be the published models'; no config.json says it");
  }
  return lines;
}
