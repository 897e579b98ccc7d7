/** A checkpoint's student or teacher backbone as other libraries name it. */
import {
  configFiles,
  dialectFor,
  type ForeignTensor,
  type Layout,
  layoutOf,
  PaddockError,
  type Parameter,
  type RunSpec,
  shapeOf,
  type WeightFormat,
} from "@paddock/contract";
import { openCheckpoint } from "../checkpoint/reader.js";
import { namedTensor, type ReadParameter } from "./foreign-values.js";
import { writeWeights } from "./write-weights.js";

export interface ExportOptions {
  /** `<run>/checkpoints/<step>`. */
  readonly checkpoint: string;
  /** The run's. */
  readonly spec: RunSpec;
  readonly side: "student" | "teacher";
  readonly format: WeightFormat;
  /** Folder to make. */
  readonly out: string;
  /** Replace it if it exists. */
  readonly force: boolean;
}

export interface ExportResult {
  /** In words: "transformers Dinov2Model". */
  readonly title: string;
  readonly step: number;
  readonly tensors: number;
  /** Parameters of the backbone that these names have no place for. */
  readonly leftOut: readonly string[];
}

/**
 * Writes the folder: model.safetensors and configuration. Every byte of the checkpoint is verified first. Errors: those of
 * `openCheckpoint`; `invalid-argument` when the format cannot say what the backbone is; `already-exists`; `disk-unavailable`.
 */
export async function exportWeights(options: ExportOptions): Promise<ExportResult> {
  const { spec, side, format, out, force } = options;
  const shape = shapeOf(spec);
  const dialect = dialectFor(format, shape);
  const problems = dialect.problems(shape, spec.model);
  if (problems.length > 0) {
    throw new PaddockError(
      "invalid-argument",
      `${dialect.title} cannot be this backbone:\n  ${problems.join("\n  ")}\nuse --format official, which says all that a spec can`,
    );
  }
  const layout = layoutOf(spec);
  const units = layout.units.filter(({ submodule }) => submodule === "backbone");
  const checkpoint = await openCheckpoint(options.checkpoint, {
    parts: [{ kind: side, units }],
    units: "part",
  });
  const read: ReadParameter = (parameter, first, elements) => {
    const { unit, offset } = placeOf(layout, parameter);
    return checkpoint.readRange(side, unit, offset + first, offset + first + elements);
  };
  try {
    const { step } = checkpoint.manifest;
    const written = dialect.tensors(shape).filter(({ presence }) => presence !== "accepted");
    await writeWeights({
      out,
      force,
      tensors: written.map((tensor) => namedTensor(tensor, spec.model.rope, read)),
      metadata: { format: "pt", paddock: `${spec.name}, ${side}, step ${step}` },
      files: configFiles(dialect, shape, {
        ...spec.model,
        imageSize: spec.crops.global.size,
        mean: spec.crops.mean,
        std: spec.crops.std,
      }),
    });
    return {
      title: dialect.title,
      step,
      tensors: written.length,
      leftOut: leftOut(written, layout),
    };
  } finally {
    await checkpoint.close();
  }
}

function leftOut(written: readonly ForeignTensor[], layout: Layout): string[] {
  const held = new Set(written.flatMap(({ copies }) => copies.map(({ parameter }) => parameter)));
  return layout.units
    .filter(({ submodule }) => submodule === "backbone")
    .flatMap(({ parameters }) => parameters.map(({ name }) => name))
    .filter((name) => !held.has(name));
}

function placeOf(layout: Layout, name: string): { unit: string } & Pick<Parameter, "offset"> {
  for (const unit of layout.units) {
    const found = unit.parameters.find((parameter) => parameter.name === name);
    if (found) return { unit: unit.name, offset: found.offset };
  }
  throw new PaddockError("internal", `no parameter ${name}`);
}
