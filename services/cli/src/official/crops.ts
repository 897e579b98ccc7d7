/** Crops, masks and the images they come from. */
import { dirname, join } from "node:path/posix";
import type { RunSpecInput } from "@paddock/contract";
import { type Draft, isPlaceholder } from "./draft.js";

type CropsInput = NonNullable<RunSpecInput["crops"]>;
type Resolution = NonNullable<CropsInput["resolutions"]>[number];

export function cropsOf(draft: Draft): CropsInput {
  const common: CropsInput = {
    global: {
      size: largest(draft, "crops.global_crops_size"),
      scale: draft.pair("crops.global_crops_scale"),
    },
    local: {
      size: largest(draft, "crops.local_crops_size"),
      scale: draft.pair("crops.local_crops_scale"),
    },
    localCount: draft.number("crops.local_crops_number"),
    color: { blur: "official", blurKernel: "kernel9" },
  };
  if (draft.family === "dinov2") return common;
  draft.demand(
    (common.localCount ?? 0) > 0,
    "crops.local_crops_number",
    "at least 1 in DINOv3",
    "set crops.local_crops_number=8",
  );
  return {
    ...common,
    gramSize: gramSize(draft),
    gramUndistorted: draft.boolean("crops.gram_teacher_no_distortions"),
    resolutions: resolutionsOf(draft),
    shareColorJitter: draft.boolean("crops.share_color_jitter"),
    localInGlobal: draft.boolean("crops.localcrops_subset_of_globalcrops"),
    flipProbability: draft.boolean("crops.horizontal_flips") ? 0.5 : 0,
    mean: draft.numbers("crops.rgb_mean"),
    std: draft.numbers("crops.rgb_std"),
  };
}

function largest(draft: Draft, path: string): number {
  const sizes = draft.numbers(path);
  draft.demand(sizes.length > 0, path, "a size in pixels", `set ${path}=224`);
  draft.demand(
    sizes.length === 1 || draft.family === "dinov3",
    path,
    "one size: DINOv2 has no lists of them",
    `set ${path} to one number`,
  );
  return whole(draft, path, Math.max(...sizes));
}

/** DINOv3 leaves out pixels that fill no patch: 168 with patches of 16 makes 10 of them. DINOv2 refuses such sizes. */
function whole(draft: Draft, path: string, size: number): number {
  const patch = draft.number("student.patch_size");
  const rounded = Math.floor(size / patch) * patch;
  if (draft.family === "dinov2" || rounded === size) return size;
  draft.warn(
    path,
    "unsupported",
    `crops of ${size} become crops of ${rounded}, a multiple of the patch size ${patch}: the official code makes ${size} and leaves out their last ${size - rounded} rows and columns`,
  );
  return rounded;
}

function gramSize(draft: Draft): number | null {
  const sizes = draft.numbers("crops.gram_teacher_crops_size");
  if (sizes.length === 0) return null;
  if (draft.boolean("gram.use_loss")) return largest(draft, "crops.gram_teacher_crops_size");
  draft.warn(
    "crops.gram_teacher_crops_size",
    "ignored",
    "without gram.use_loss no crops are made for a gram teacher",
  );
  return null;
}

/** The sizes that steps are drawn from. Lists must have one length. */
function resolutionsOf(draft: Draft): Resolution[] {
  const globals = draft.numbers("crops.global_crops_size");
  const locals = draft.numbers("crops.local_crops_size");
  const ratios = draft.numbers("crops.global_local_crop_pairs_ratios");
  const grams = draft.numbers("crops.gram_teacher_crops_size");
  for (const [path, list] of [
    ["crops.local_crops_size", locals],
    ["crops.global_local_crop_pairs_ratios", ratios],
    ["crops.gram_teacher_crops_size", grams.length === 0 ? globals : grams],
  ] as const) {
    draft.demand(
      list.length === globals.length,
      path,
      `as many values as crops.global_crops_size, ${globals.length}`,
      `give ${path} one value for each`,
    );
  }
  if (globals.length === 1) return [];
  const size = (path: string, value: number): number => whole(draft, path, value);
  const gramUsed = draft.boolean("gram.use_loss");
  return globals.map((global, i) => {
    const gram = gramUsed ? grams[i] : undefined;
    return {
      global: size("crops.global_crops_size", global),
      local: size("crops.local_crops_size", locals[i] ?? 0),
      gram: gram === undefined ? null : size("crops.gram_teacher_crops_size", gram),
      ratio: ratios[i] ?? 0,
    };
  });
}

export function masksOf(draft: Draft): NonNullable<RunSpecInput["masks"]> {
  const probability = draft.number("ibot.mask_sample_probability");
  const ratio = draft.pair("ibot.mask_ratio_min_max");
  if (draft.family === "dinov2") return { probability, ratio };
  return {
    probability,
    ratio,
    exact: true,
    circularShift: draft.boolean("ibot.mask_random_circular_shift"),
  };
}

export function dataOf(draft: Draft): RunSpecInput["data"] {
  const threads = draft.derive(
    "data.threads",
    Math.max(1, Math.min(draft.number("train.num_workers"), draft.options.maxThreads)),
    `train.num_workers, at most ${draft.options.maxThreads} on this machine`,
  );
  const text = draft.text("train.dataset_path");
  const { data } = draft.options;
  if (data === null) return { kind: "folder", threads, ...folderOf(draft, text) };
  draft.derive("data.path", data, "--data");
  return { kind: "folder", threads, path: data, validationPath: validationBeside(draft, data) };
}

/** What `train.dataset_path` names: the folder of ImageNet's layout when it is there. */
function folderOf(draft: Draft, text: string): { path: string; validationPath: string | null } {
  const [name = "", ...options] = text.split(":");
  const entries = options.map((option) => option.split("=", 2) as [string, string | undefined]);
  const root = entries.find(([key]) => key === "root")?.[1];
  const remedy =
    "set train.dataset_path=ImageNet:split=TRAIN:root=/path, or give the folder of the training images with --data /path";
  const missing = (why: string): { path: string; validationPath: null } => {
    draft.blockers.push(`train.dataset_path: ${why}; ${remedy}`);
    return { path: "missing", validationPath: null };
  };
  if (text === "" || isPlaceholder(text)) return missing("it names no dataset");
  if (name !== "ImageNet" && name !== "ImageNet22k") {
    return missing(`expected ImageNet or ImageNet22k, received ${name}`);
  }
  const split = entries.find(([key]) => key === "split")?.[1] ?? "TRAIN";
  if (split.toUpperCase() !== "TRAIN") return missing(`expected split=TRAIN, received ${split}`);
  if (root === undefined) return missing(`"${text}" says nothing of where the images are`);
  if (!draft.options.exists(root)) return missing(`there is no folder ${root}`);
  if (options.some((option) => option.startsWith("extra="))) {
    draft.warn("train.dataset_path", "ignored", "extra=: the folder itself is listed");
  }
  const train = join(root, "train");
  const path = draft.derive(
    "data.path",
    draft.options.exists(train) ? train : root,
    "root of train.dataset_path",
  );
  return { path, validationPath: validationBeside(draft, path) };
}

function validationBeside(draft: Draft, train: string): string | null {
  const folder = join(dirname(train), "val");
  if (folder === train || !draft.options.exists(folder)) return null;
  return draft.derive("data.validationPath", folder, "the folder val beside the training images");
}
