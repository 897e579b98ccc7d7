/** `paddock export <run-dir>`: a checkpoint's backbone as the official code, transformers or timm load it. */
import { join, resolve } from "node:path";
import { PaddockError, type WeightFormat } from "@paddock/contract";
import { exportWeights, listCheckpoints } from "@paddock/worker";
import { count } from "../display/format.js";
import type { Io } from "../io.js";
import { checkpointRootOf } from "../run/checkpoint-root.js";
import { readRunSpec } from "../run/run-directory.js";
import { resolveStage } from "../stages/stage-folders.js";

export interface ExportFlags {
  readonly runDir: string;
  readonly format: WeightFormat;
  readonly side: "student" | "teacher";
  readonly step?: number;
  readonly out?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Returns the exit code. */
export async function exportCommand(flags: ExportFlags, io: Io): Promise<number> {
  const { format, side, force = false } = flags;
  const runDir = await resolveStage(resolve(io.cwd, flags.runDir));
  const spec = await readRunSpec(runDir);
  const checkpoint = await checkpointOf(runDir, flags.step);
  const out = flags.out
    ? resolve(io.cwd, flags.out)
    : join(runDir, "export", `${format}-${side}-${checkpoint.step}`);
  const { title, step, tensors, leftOut } = await exportWeights({
    checkpoint: checkpoint.directory,
    spec,
    side,
    format,
    out,
    force,
  });
  if (flags.json) {
    io.out(`${JSON.stringify({ out, format, title, side, step, tensors, leftOut })}\n`);
    return 0;
  }
  const without =
    leftOut.length === 0 ? "" : `\nwithout ${leftOut.join(", ")}: it has no place for them`;
  io.out(
    `${side} after ${count(step)} steps as ${title}, ${tensors} tensors${without}\n${out}\n${loadLine(format, out)}`,
  );
  return 0;
}

async function checkpointOf(runDir: string, step: number | undefined) {
  const root = await checkpointRootOf(runDir);
  const complete = await listCheckpoints(root);
  const found = step === undefined ? complete[0] : complete.find((other) => other.step === step);
  if (found) return found;
  const known = complete.map((other) => other.step).join(", ") || "none";
  throw new PaddockError(
    "not-found",
    `expected a complete checkpoint${step === undefined ? "" : ` of step ${step}`} in ${root}, found ${known}`,
  );
}

function loadLine(format: WeightFormat, out: string): string {
  switch (format) {
    case "official":
      return "";
    case "transformers":
      return `load it: transformers.AutoModel.from_pretrained("${out}")\n`;
    case "timm":
      return `load it: timm.create_model("local-dir:${out}", pretrained=True)\n`;
  }
}
