/** Keys of official configs that do not change a run here: why, and which of them are dead in the official code too. */
import type { Config } from "./config.js";

export type Family = "dinov2" | "dinov3";

/** ignored: Paddock does it its own way. dead: the official code reads nothing of it either. unsupported: the official code does more. */
export type NoteKind = "ignored" | "dead" | "unsupported";

export interface KeyNote {
  readonly kind: NoteKind;
  readonly why: string;
  /** A value that asks for nothing: no warning for it. */
  readonly neutral?: Config;
  /** Any other value than the neutral one is an error, this its remedy. */
  readonly refuse?: string;
}

const ignored = (why: string): KeyNote => ({ kind: "ignored", why });
const dead = (why: string): KeyNote => ({ kind: "dead", why });
const unread = dead("the official code never reads it");

const shared: Readonly<Record<string, KeyNote>> = {
  "train.output_dir": ignored("the run directory is given with --run-dir"),
  "train.saveckp_freq": unread,
  "train.cache_dataset": ignored(
    "images are sampled without replacement, rank by rank, either way",
  ),
};

const parts = ["teacher", "student"].flatMap((network) =>
  ["backbone", "dino_head", "ibot_head"].map((name) => `compute_precision.${network}.${name}`),
);
/** Read: it decides for all parts. */
const readPart = "compute_precision.student.backbone.mixed_precision.";
const partNotes = parts
  .flatMap(notesOfPart)
  .filter(([key]) => !/(param|reduce)_dtype$/.test(key) || !key.startsWith(readPart));

function notesOfPart(part: string): [string, KeyNote][] {
  return [
    [
      `${part}.sharding_strategy`,
      ignored("student, teacher and moments are always sharded over the workers"),
    ],
    [
      `${part}.mixed_precision.param_dtype`,
      ignored("student.backbone's decides for both networks; heads and norms compute in fp32"),
    ],
    [
      `${part}.mixed_precision.reduce_dtype`,
      ignored("student.backbone's decides for all weights and gradients that travel"),
    ],
    [`${part}.mixed_precision.buffer_dtype`, dead("no module trained here has buffers of it")],
  ];
}

const dinov2Notes: Readonly<Record<string, KeyNote>> = {
  ...shared,
  ...Object.fromEntries(partNotes),
  "train.seed": dead("the official seed is the launcher's --seed; so is Paddock's"),
  "optim.lr": dead("the scaling rule overwrites it: set optim.base_lr"),
  "student.block_chunks": ignored("it groups blocks for FSDP; each block is a unit here"),
};

const fromOldCode = [
  "train.cell_augmentation",
  "train.cell_augmentation_type",
  "student.patch_drop",
  "student.drop_path_uniform",
  "student.drop_path_shape",
  "student.block_chunks",
  "student.sin_cos_embeddings",
  "student.fourier_embeddings",
  "student.fourier_encoding_dim",
  "student.multiple_pos_embeddings",
  "student.cls_pos_embedding",
  "student.reg_pos_embedding",
  "student.mask_attention",
  "student.mask_register_attention",
  "student.interpolate_offset",
  "student.interpolate_antialias",
  "student.init_std_cls",
  "student.init_std_reg",
  "student.rescale_weights_by_layer_id",
  "student.pos_embed_grid_size",
  "student.pos_embed_rope_gamma",
  "student.pos_embed_rope_init_multi_frequencies",
  "coding_rate_loss.use_cls_loss",
  "coding_rate_loss.cls_loss_weight",
  "coding_rate_loss.use_masked_patches_loss",
  "coding_rate_loss.masked_patches_loss_weight",
  "coding_rate_loss.epsilon",
];

const multi = ignored("only several students in one job need it");

const dinov3Notes: Readonly<Record<string, KeyNote>> = {
  ...shared,
  ...Object.fromEntries(fromOldCode.map((key) => [key, unread])),
  "MODEL.DEVICE": ignored("each worker owns one device, chosen with the engine"),
  "MODEL.DTYPE": unread,
  "MODEL.WEIGHTS": dead("training never loads it: set student.resume_from_teacher_chkpt"),
  "compute_precision.sharding_strategy": ignored(
    "student, teacher and moments are always sharded over the workers",
  ),
  "dino.head_norm_last_layer": dead("prototypes are a plain linear layer"),
  "ibot.head_norm_last_layer": dead("prototypes are a plain linear layer"),
  "dino.force_weight_norm": dead("prototypes are a plain linear layer"),
  "dino.koleo_distributed_loss_group_data": unread,
  "ibot.force_masking_even_with_zero_weight": {
    ...ignored("without iBOT nothing is masked"),
    neutral: false,
  },
  "train.data_config": {
    kind: "unsupported",
    why: "data come from one folder",
    neutral: null,
    refuse: "set train.data_config=null and give the images with --data",
  },
  "train.monitor_gradient_norm": dead("gradient norms are always recorded"),
  "train.chunk_schedule": unread,
  "train.use_teacher_head": unread,
  "train.learn_from_teacher_tokens": unread,
  "train.compile": ignored("the engine has fused operations of its own"),
  "train.cudagraphs": ignored("the engine has fused operations of its own"),
  "train.sharded_eval_checkpoint": ignored("checkpoints are always sharded"),
  "student.ffn_ratio": dead("the architecture decides it"),
  "student.in_chans": dead("three channels, always"),
  "student.pos_embed_type": dead("positions are rotary, always"),
  "student.pos_embed_rope_dtype": dead("tables are bf16: the model builder does not hand it on"),
  "student.pretrained_weights": dead(
    "training never loads it: set student.resume_from_teacher_chkpt",
  ),
  "student.fp8_enabled": {
    kind: "unsupported",
    why: "matrix products run in bf16 instead of fp8",
    neutral: false,
  },
  "student.fp8_filter": ignored("there is no fp8"),
  "teacher.in_chans": dead("three channels, always"),
  "multidistillation.global_batch_size": multi,
  "multidistillation.students": multi,
  "hrft.enabled": dead("to start from trained weights set student.resume_from_teacher_chkpt"),
  "hrft.checkpoint_path": dead(
    "to start from trained weights set student.resume_from_teacher_chkpt",
  ),
  "optim.optimizer": dead("AdamW, always"),
  "optim.dino_head_wd_multiplier": dead("it looks for a name that no parameter has"),
  "optim.multi_tensor_optim": ignored("updates are one operation over a shard"),
  "optim.dump_fsdp_weights_path": unread,
  "gram.compute_stats": {
    kind: "unsupported",
    why: "only the loss is recorded",
    neutral: false,
  },
  "crops.teacher_to_student_resolution_scale": {
    kind: "unsupported",
    why: "both networks see crops of one size",
    neutral: 1,
    refuse: "set crops.teacher_to_student_resolution_scale=1",
  },
  "evaluation.low_freq_every": unread,
  "evaluation.config_files.high_freq": unread,
  "evaluation.config_files.low_freq": unread,
};

export const keyNotes: Readonly<Record<Family, Readonly<Record<string, KeyNote>>>> = {
  dinov2: dinov2Notes,
  dinov3: dinov3Notes,
};

const form = ["start", "peak", "end", "warmup_epochs", "cosine_epochs"];
const forms = (name: string): string[] => form.map((key) => `${name}.${key}`);

/** Keys that are read and that the defaults do not hold. */
export const optionalKeys: Readonly<Record<Family, readonly string[]>> = {
  dinov2: [],
  dinov3: [
    ...["lr", "weight_decay", "momentum", "teacher_temp"].flatMap((name) =>
      forms(`schedules.${name}`),
    ),
    "schedules.lr.freeze_last_layer_epochs",
    ...forms("dino.local_loss_weight_schedule"),
    ...forms("gram.loss_weight_schedule"),
  ],
};
