/** A worker's shards of a backbone from a file in official, transformers or timm names: ranges of it, never the whole model. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import {
  constantValues,
  type Detected,
  detectWeights,
  type ImportPlan,
  intersect,
  type Layout,
  PaddockError,
  type Parameter,
  planImport,
  type Range,
  type RunSpec,
  shapeOf,
  shardOf,
} from "@paddock/contract";
import { initialUnit } from "@paddock/model";
import type { Membership } from "../engine/calls.js";
import { openWeights, type WeightsFile } from "./weights-file.js";

export interface BackboneTarget {
  /** The safetensors file. */
  readonly path: string;
  /** That it must have, in lower-case hex; null: any. */
  readonly sha256: string | null;
  readonly spec: RunSpec;
  readonly layout: Layout;
  readonly membership: Pick<Membership, "worker" | "workers">;
  /** Shards by unit. */
  readonly state: Readonly<Record<"student" | "teacher", Readonly<Record<string, Float32Array>>>>;
}

/**
 * Fills student and teacher of the backbone's units; heads are left as they are. What the file need not have (mask token) is drawn from the
 * seed. Throws `invalid-argument` with all differences, before anything is filled, when the file is not the spec's backbone.
 */
export async function loadBackbone(target: BackboneTarget): Promise<void> {
  const { spec, layout, membership, state } = target;
  const file = await openWeights(target.path);
  try {
    if (target.sha256 !== null) await checkHash(target.path, target.sha256);
    const { plan } = await checkedPlan(file, spec);
    for (const unit of layout.units) {
      if (unit.submodule !== "backbone") continue;
      const range = shardOf(unit.elements, membership.worker, membership.workers);
      // Padding stays zero.
      const values = new Float32Array(range.end - range.start);
      let initial: Float32Array | undefined;
      for (const parameter of unit.parameters) {
        const { offset, elements } = parameter;
        const part = intersect(range, { start: offset, end: offset + elements });
        if (!part) continue;
        const out = values.subarray(part.start - range.start, part.end - range.start);
        if (plan.pieces.has(parameter.name)) {
          await readPart(file, plan, parameter, part, out);
        } else {
          initial ??= initialUnit(spec, unit);
          out.set(initial.subarray(part.start, part.end));
        }
      }
      state.student[unit.name]?.set(values);
      state.teacher[unit.name]?.set(values);
    }
  } finally {
    await file.close();
  }
}

async function checkHash(path: string, expected: string): Promise<void> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  const received = hash.digest("hex");
  if (received === expected) return;
  throw new PaddockError(
    "checkpoint-corrupt",
    `${path}: expected SHA-256 ${expected}, received ${received}; was it replaced? Give the file that the run was started with`,
  );
}

/** What the file is, and how it fills the spec's backbone; its constants (rotary periods, masks) are compared. */
export async function checkedPlan(
  file: WeightsFile,
  spec: Pick<RunSpec, "model" | "crops">,
): Promise<{ detected: Detected; plan: ImportPlan }> {
  const detected = detectWeights(file.tensors, file.heads);
  const plan = planImport(file.tensors, detected, shapeOf(spec), file.path);
  await checkConstants(file, plan, spec.model.rope);
  return { detected, plan };
}

/** Elements `part` of the unit, which lie in the parameter. */
async function readPart(
  file: WeightsFile,
  plan: ImportPlan,
  { name, offset }: Parameter,
  part: Range,
  out: Float32Array,
): Promise<void> {
  const wanted = { start: part.start - offset, end: part.end - offset };
  for (const { tensor, at, first, elements } of plan.pieces.get(name) ?? []) {
    const common = intersect(wanted, { start: first, end: first + elements });
    if (!common) continue;
    const values = await file.read(tensor, at + common.start - first, common.end - common.start);
    out.set(values, common.start - wanted.start);
  }
}

/** Official files have their periods in bf16: 8 bits. */
const periodTolerance = 2 ** -7;

async function checkConstants(
  file: WeightsFile,
  plan: ImportPlan,
  rope: RunSpec["model"]["rope"],
): Promise<void> {
  for (const [name, tensor] of plan.constants) {
    if (!tensor.checked) continue;
    const expected = constantValues(tensor, rope);
    const received = await file.read(name, 0, expected.length);
    const tolerance = tensor.constant === "periods" ? periodTolerance : 0;
    const at = expected.findIndex(
      (value, i) => !(Math.abs((received[i] as number) - value) <= tolerance * Math.abs(value)),
    );
    if (at < 0) continue;
    throw new PaddockError(
      "invalid-argument",
      `${file.path}: ${name}: expected ${expected[at]} at ${at}, received ${received[at]}; ${remedyFor(tensor.constant)}`,
    );
  }
}

function remedyFor(constant: string): string {
  if (constant === "periods") return "set model.rope to the file's";
  if (constant === "ones") return "set model.layerScale above 0";
  return "this backbone is another one than the spec's";
}
