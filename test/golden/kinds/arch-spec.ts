/** The run spec of a recorded step: its official config through `paddock train --config`, but for sizes that no preset has. */
import { officialRecipe } from "@paddock/cli";
import type { RunSpec } from "@paddock/contract";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";

const sections = ["dino", "ibot", "gram", "student", "teacher", "optim", "crops", "schedules"];
const known = [
  ...sections,
  ...["centering", "batch", "OFFICIAL_EPOCH_LENGTH", "steps", "first_iteration", "submodules"],
  ...["param_names", "adamw_eps", "params_without_grad", "gram_updates_done", "drop_path_rates"],
];
const sizes = ["embed", "depth", "heads", "mlp_ratio", "ffn_ratio", "rope_dtype"];

export function archSpec({ config, family }: Golden): RunSpec {
  onlyKnown("config", config, known);
  const { student, optim, centering, batch, OFFICIAL_EPOCH_LENGTH } = config;
  const { arch } = student;
  onlyKnown("student.arch", arch, sizes);
  const isV3 = family === "dinov3";
  const file = {
    ...Object.fromEntries(
      sections.filter((name) => config[name]).map((name) => [name, config[name]]),
    ),
    student: { ...student, arch: "vit_small" },
    // DINOv3's recorded rate has been scaled already; a rule that it does not know scales nothing.
    optim: isV3 ? { ...optim, scaling_rule: "none" } : optim,
    train: {
      batch_size_per_gpu: batch,
      OFFICIAL_EPOCH_LENGTH,
      ...(centering ? { centering } : {}),
    },
  };
  const set = (path: string, value: unknown) => ({ path: path.split("."), value });
  const { spec } = officialRecipe({
    file,
    where: "config",
    overrides: [],
    specOverrides: [
      set("model.arch", "custom"),
      set("model.width", arch.embed),
      set("model.depth", arch.depth),
      set("model.heads", arch.heads),
      set("model.mlpRatio", arch.ffn_ratio ?? arch.mlp_ratio),
      ...(arch.rope_dtype ? [set("model.rope.dtype", arch.rope_dtype)] : []),
      set("optimizer.eps", config.adamw_eps),
      set("engine.precision", "fp32"),
    ],
    family: isV3 ? "dinov3" : "dinov2",
    allowUnknown: false,
    options: {
      name: "golden",
      logicalRanks: 1,
      workers: 1,
      maxThreads: 1,
      precision: "fp32",
      fp32Because: null,
      data: "/unused",
      exists: () => true,
      read: (path) => {
        throw new RangeError(`the config reads another file: ${path}`);
      },
    },
  });
  return spec;
}
