import { createMetrics } from "@paddock/service-kit";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";
import { createRunMetrics } from "./run-metrics.js";

const expected = {
  paddock_run_info: "gauge",
  paddock_steps_total: "counter",
  paddock_step: "gauge",
  paddock_steps_planned: "gauge",
  paddock_images_total: "counter",
  paddock_images_per_second: "gauge",
  paddock_loss: "gauge",
  paddock_grad_norm: "gauge",
  paddock_teacher_entropy_nats: "gauge",
  paddock_uniform_entropy_nats: "gauge",
  paddock_teacher_kl_to_uniform_nats: "gauge",
  paddock_feature_std_ratio: "gauge",
  paddock_feature_effective_rank: "gauge",
  paddock_collapse: "gauge",
  paddock_collapse_alerts_total: "counter",
  paddock_learning_rate: "gauge",
  paddock_weight_decay: "gauge",
  paddock_momentum: "gauge",
  paddock_teacher_temperature: "gauge",
  paddock_step_seconds: "gauge",
  paddock_knn_accuracy: "gauge",
  paddock_workers: "gauge",
  paddock_workers_connected: "gauge",
  paddock_generation: "gauge",
  paddock_exchange_bytes_total: "counter",
  paddock_checkpoint_step: "gauge",
  paddock_checkpoint_durability_lag_steps: "gauge",
  paddock_checkpoint_failures_total: "counter",
  paddock_checkpoint_seconds: "gauge",
  paddock_state_bytes: "gauge",
  paddock_peak_gathered_bytes: "gauge",
  paddock_event_loop_delay_p99_seconds: "gauge",
  paddock_device_memory_bytes: "gauge",
  paddock_worker_ranks: "gauge",
  paddock_worker_seconds_per_rank: "gauge",
  paddock_bad_images_total: "counter",
  paddock_skipped_steps_total: "counter",
  paddock_non_finite_step: "gauge",
  paddock_rollbacks_total: "counter",
  paddock_loss_spikes_total: "counter",
  paddock_left_out_steps: "gauge",
  paddock_stale_messages_total: "counter",
  paddock_redis_used_memory_bytes: "gauge",
  paddock_loss_scale: "gauge",
};

/** A run in its fifth step, with a checkpoint and an evaluation behind it, and a step that was skipped. */
function runningWorld(): World {
  const offender = { order: 2, tensor: "loss koleo", rank: 3, samples: [7, 5] };
  const world = new World(exampleSpec(), (prepared) =>
    prepared.step === 2 && prepared.losses.some(({ rank }) => rank === 3)
      ? { ...prepared, finite: false, offenders: [offender] }
      : prepared,
  );
  world.join();
  world.join();
  while (world.state.durable.next < 5) world.settle(1);
  return world;
}

test("every metric has a type, a help text and a value during a run", async () => {
  const registry = createMetrics({});
  createRunMetrics(registry).refresh(runningWorld().state, 1_000);
  const text = await registry.metrics();
  for (const [name, type] of Object.entries(expected)) {
    expect(text).toMatch(new RegExp(`^# HELP ${name} \\S`, "m"));
    expect(text).toContain(`# TYPE ${name} ${type}\n`);
    expect(text).toMatch(new RegExp(`^${name}(\\{.*\\})? [0-9.e+-]+$`, "m"));
  }
  const ours = [...text.matchAll(/^# TYPE (paddock_\w+)/gm)].map(([, name]) => name);
  expect(ours.sort()).toEqual(Object.keys(expected).sort());
});

test("what is not known yet has no value, instead of a zero that would be plotted", async () => {
  const registry = createMetrics({});
  createRunMetrics(registry).refresh(new World(exampleSpec()).state, undefined);
  const text = await registry.metrics();
  for (const name of ["paddock_knn_accuracy", "paddock_learning_rate", "paddock_checkpoint_step"]) {
    expect(text).not.toMatch(new RegExp(`^${name} `, "m"));
  }
});

test("a second scrape reads the same counters, and a worker that left is no longer shown", async () => {
  const registry = createMetrics({});
  const metrics = createRunMetrics(registry);
  const world = runningWorld();
  metrics.refresh(world.state, 1);
  metrics.refresh(world.state, 1);
  expect(await registry.metrics()).toMatch(/^paddock_steps_total 5$/m);
  expect(await registry.metrics()).toContain('paddock_state_bytes{worker="1"} 400');
  world.kill(2);
  metrics.refresh(world.state, 1);
  expect(await registry.metrics()).not.toContain("paddock_state_bytes{");
  expect(await registry.metrics()).toMatch(/^paddock_workers 0$/m);
});

test("a step that was not finite is counted by its reason, and shown with what was so first", async () => {
  const registry = createMetrics({});
  createRunMetrics(registry).refresh(runningWorld().state, 1);
  const text = await registry.metrics();
  expect(text).toContain('paddock_skipped_steps_total{reason="loss"} 1\n');
  expect(text).toContain(
    'paddock_non_finite_step{reason="loss",tensor="loss koleo",rank="3",worker="w2",samples="7,5"} 2\n',
  );
});
