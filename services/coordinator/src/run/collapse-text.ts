/** A collapse in words: its name, its numbers against their references, and what to change in this run's spec. */
import { type CollapseKind, type RunSpec, scalarsAt } from "@paddock/contract";
import type { Look } from "./collapse.js";

/** One paragraph for logs, the ledger and people. */
export function collapseText(spec: RunSpec, kind: CollapseKind, { step, monitor }: Look): string {
  const uniform = Math.log(spec.heads.dino.prototypes);
  const { teacherEntropy, klToUniform, featureStd, effectiveRank } = monitor;
  const outputs = `teacher entropy ${nats(teacherEntropy)}, KL to uniform ${nats(klToUniform)}, ln K = ${nats(uniform)} (K = ${spec.heads.dino.prototypes})`;
  const features = `feature std ${featureStd.toFixed(3)} (1: all directions alike), effective rank ${effectiveRank.toFixed(1)}`;
  return `${meaning[kind]}, step ${step}: ${outputs}; ${features}. To change: ${adviceOf(spec, kind, step).join("; ")}`;
}

const meaning: Record<CollapseKind, string> = {
  uniform:
    "uniform collapse (the teacher's outputs are uniform for every image; a DINO loss at ln K says the same)",
  "single-prototype":
    "single-prototype collapse (one prototype gets nearly every image; the DINO loss goes to 0)",
  "constant-features":
    "constant-features collapse (the backbone's features are the same for every image)",
};

function adviceOf(spec: RunSpec, kind: CollapseKind, step: number): string[] {
  switch (kind) {
    case "uniform":
      return [...colder(spec, step), ...gentler(spec), ...largerBatch(spec)];
    case "single-prototype":
      return [...centred(spec), ...gentler(spec), ...largerBatch(spec)];
    case "constant-features":
      return [...spread(spec), ...centred(spec), ...colder(spec, step), ...gentler(spec)];
  }
}

/** The teacher must be sharper than the student. 0.08 collapses in DINO's paper (appendix on the temperature), 0.04 to 0.07 train. */
function colder(spec: RunSpec, step: number): string[] {
  const now = scalarsAt(spec, step).teacherTemperature;
  const { peak } = spec.schedules.teacherTemperature;
  if (Math.max(now, peak) > 0.07) {
    return [
      `schedules.teacherTemperature at most 0.07 (now ${short(now)}, peak ${short(peak)}), started at 0.04`,
    ];
  }
  return now > 0.04
    ? [`schedules.teacherTemperature lower, or warmed up longer from 0.04 (now ${short(now)})`]
    : [];
}

function centred({ loss }: RunSpec): string[] {
  if (loss.centering === "sinkhorn") return [];
  const momentum =
    loss.centerMomentum > 0.99
      ? [`loss.centerMomentum 0.9 (now ${loss.centerMomentum}: the centre stands still)`]
      : [];
  return [...momentum, "loss.centering sinkhorn"];
}

function spread({ loss }: RunSpec): string[] {
  return loss.koleo === 0 ? ["loss.koleo 0.1 (now 0)"] : [];
}

function gentler({ schedules }: RunSpec): string[] {
  const { peak, warmupSteps } = schedules.learningRate;
  return [
    `schedules.learningRate lower or warmed up longer (peak ${short(peak)}, ${warmupSteps} steps)`,
  ];
}

function largerBatch({ logicalRanks, batchPerRank }: RunSpec): string[] {
  const images = logicalRanks * batchPerRank;
  return images < 256 ? [`more images a step (now ${images})`] : [];
}

function nats(value: number): string {
  return value.toFixed(3);
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
