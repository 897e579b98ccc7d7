/** Schedules and per-parameter multipliers against the reference: pure arithmetic, no engine. */
import { layoutOf, parseRunSpec, scalarsAt, scheduleAt } from "@paddock/contract";
import { learningRateOf, weightDecayOf } from "@paddock/model";
import { expect, test } from "vitest";
import { plainName } from "../golden/backbone.js";
import { expectClose } from "./support/close.js";
import { readGolden } from "./support/safetensors.js";

const inDoubles = () => 1e-12;

test("every schedule matches the reference at every iteration, and past the end", () => {
  const golden = readGolden("dinov2/schedules");
  const { optim, teacher, OFFICIAL_EPOCH_LENGTH: epoch, total_iterations: steps } = golden.config;
  const spec = parseRunSpec({
    steps,
    batchPerRank: 2,
    data: { path: "unused" },
    schedules: {
      learningRate: {
        peak: optim.lr,
        end: optim.min_lr,
        warmupSteps: optim.warmup_epochs * epoch,
      },
      weightDecay: { peak: optim.weight_decay, end: optim.weight_decay_end },
      momentum: { peak: teacher.momentum_teacher, end: teacher.final_momentum_teacher },
      teacherTemperature: {
        start: teacher.warmup_teacher_temp,
        peak: teacher.teacher_temp,
        warmupSteps: teacher.warmup_teacher_temp_epochs * epoch,
      },
      freezeLastLayerSteps: optim.freeze_last_layer_epochs * epoch,
    },
  });
  const lr = golden.f64("outputs.lr");
  const ours = Array.from(lr, (_, step) => scalarsAt(spec, step));
  const check = (what: string, key: keyof (typeof ours)[number]) =>
    expectClose(
      what,
      ours.map((scalars) => scalars[key]),
      golden.f64(`outputs.${what}`) as unknown as ArrayLike<number>,
      inDoubles,
    );
  check("lr", "learningRate");
  check("last_layer_lr", "lastLayerLearningRate");
  check("wd", "weightDecay");
  check("momentum", "momentum");
  check("teacher_temp", "teacherTemperature");
});

test("a schedule that is frozen first is zero, then the same cosine", () => {
  const golden = readGolden("dinov2/schedules");
  const f = golden.config.freeze;
  const schedule = {
    kind: "cosine" as const,
    start: f.start_warmup_value,
    peak: f.base_value,
    end: f.final_value,
    warmupSteps: f.warmup_iters,
    freezeSteps: f.freeze_iters,
    truncExtra: 0,
    cosineSteps: null,
    stepsPerValue: 1,
  };
  const values = Array.from(golden.f64("outputs.freeze"), (_, step) =>
    scheduleAt(schedule, step, f.total_iters),
  );
  expectClose("freeze", values, golden.f64("outputs.freeze"), inDoubles);
});

test.each(["param_groups_chunks0", "param_groups_chunks4"])(
  "%s: learning-rate and weight-decay multipliers match by name",
  (file) => {
    const golden = readGolden(`dinov2/${file}`);
    const { config } = golden;
    const spec = parseRunSpec({
      steps: 1,
      batchPerRank: 2,
      data: { path: "unused" },
      model: {
        width: config.embed,
        depth: config.depth,
        heads: config.heads,
        patchSize: config.patch,
        registers: config.registers,
        ffn: config.ffn_layer === "mlp" ? "mlp" : "swiglu",
      },
      optimizer: {
        layerDecay: config.layerwise_decay,
        patchEmbedMultiplier: config.patch_embed_lr_mult,
      },
    });
    const parameters = new Map(
      layoutOf(spec).units.flatMap((unit) => unit.parameters.map((p) => [p.name, p] as const)),
    );
    // With a learning rate of 2 and 0 for the last layer, and a decay of 3, what comes out says which rule was applied.
    const scalars = {
      learningRate: 2,
      lastLayerLearningRate: 0,
      weightDecay: 3,
      momentum: 1,
      teacherTemperature: 1,
      localWeight: 1,
      gramWeight: 1,
    };
    const names = golden.metadata<Record<string, string[]>>("names");
    let seen = 0;
    for (const [submodule, official] of Object.entries(names)) {
      const lr = golden.f64(`outputs.${submodule}.lr_multiplier`);
      const wd = golden.f64(`outputs.${submodule}.wd_multiplier`);
      const last = golden.u8(`outputs.${submodule}.is_last_layer`);
      for (const [i, name] of official.entries()) {
        const parameter = parameters.get(`${submodule}.${plainName(name)}`);
        if (!parameter) throw new RangeError(`no parameter ${submodule}.${name}`);
        const rate = last[i] ? 0 : 2 * (lr[i] as number);
        expect(learningRateOf(parameter, scalars), name).toBeCloseTo(rate, 12);
        expect(weightDecayOf(parameter, scalars), name).toBe(3 * (wd[i] as number));
        seen++;
      }
    }
    expect(seen).toBe(parameters.size);
  },
);
