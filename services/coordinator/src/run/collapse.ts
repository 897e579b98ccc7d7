/**
 * Whether a run collapses, told from the signs that its steps carry. Pure. README, "Is it learning?", says what the signs mean.
 *
 * A healthy run also begins with outputs that are nearly uniform, or nearly the same for all images, and with features that hardly differ
 * (LayerScale starts at 1e-5). So a level alone is no evidence. Each kind needs its level throughout a window, no improvement in it,
 * and a third thing: that it was better before, or that it is worse than any initialisation, or that the warm-up is long over.
 *
 * The levels were set by runs of deploy/runs/fashion-mnist.yaml, healthy and collapsed on purpose (collapse.test.ts has their numbers).
 */
import {
  type CollapseKind,
  collapseKinds,
  type Monitor,
  type RunSpec,
  scalarsAt,
} from "@paddock/contract";

/** One look at the teacher. */
export interface Look {
  readonly step: number;
  readonly monitor: Monitor;
}

export interface CollapseWatch {
  /** The looks of the current window, oldest first. */
  readonly looks: readonly Look[];
  /** The best values so far. */
  readonly best: {
    readonly sharpness: number;
    readonly scoreSpread: number;
    readonly featureStd: number;
  };
  /** What holds now, and since when. */
  readonly collapse: { readonly kind: CollapseKind; readonly step: number } | null;
}

export const initialWatch: CollapseWatch = {
  looks: [],
  best: { sharpness: 0, scoreSpread: 0, featureStd: 0 },
  collapse: null,
};

/** A window has at least so many looks and spans at least so many steps: a centre that overshoots recovers within 10. */
const minLooks = 3;
const minSteps = 20;

/** Steps after the learning rate's warm-up from which a run that has not begun to learn counts as collapsed. */
const patience = 200;

/** The watch before `step`: a new generation computes steps again, and what was seen of them is void. */
export function rewound({ looks, best, collapse }: CollapseWatch, step: number): CollapseWatch {
  return {
    looks: looks.filter((one) => one.step < step),
    best,
    collapse: collapse && collapse.step < step ? collapse : null,
  };
}

/** The watch after one more look, later than all before. Values that are not finite say nothing. */
export function look(watch: CollapseWatch, spec: RunSpec, now: Look): CollapseWatch {
  if (!Object.values(now.monitor).every(Number.isFinite)) return watch;
  const looks = windowOf([...watch.looks, now]);
  const signs = signsOf(spec, now);
  const best = {
    sharpness: Math.max(watch.best.sharpness, signs.sharpness),
    scoreSpread: Math.max(watch.best.scoreSpread, signs.scoreSpread),
    featureStd: Math.max(watch.best.featureStd, signs.featureStd),
  };
  const { collapse } = watch;
  if (collapse && !isOver(collapse.kind, signs)) return { looks, best, collapse };
  const kind = kindOf(spec, looks, best);
  return { looks, best, collapse: kind ? { kind, step: now.step } : null };
}

/** A look in quantities that compare between runs. */
interface Signs {
  /** Nats by which an output is sharper than uniform: ln K - H. */
  readonly sharpness: number;
  /** The same of scores that no temperature has divided, near uniform: half their variance. A schedule's change of temperature is no sign. */
  readonly scoreSpread: number;
  /** Of ln K: entropy of an output; KL of the mean output to uniform. */
  readonly entropy: number;
  readonly unevenness: number;
  /** Nats that outputs say about their image, and the ln N that they could say about N crops. */
  readonly information: number;
  readonly mostInformation: number;
  readonly featureStd: number;
  /** The warm-up is long over. */
  readonly isMature: boolean;
}

function signsOf(spec: RunSpec, { step, monitor }: Look): Signs {
  const uniform = Math.log(spec.heads.dino.prototypes);
  const { teacherEntropy, klToUniform, featureStd } = monitor;
  const { freezeSteps, warmupSteps, stepsPerValue } = spec.schedules.learningRate;
  const sharpness = uniform - teacherEntropy;
  return {
    sharpness,
    scoreSpread: sharpness * scalarsAt(spec, step).teacherTemperature ** 2,
    entropy: teacherEntropy / uniform,
    unevenness: klToUniform / uniform,
    information: uniform - teacherEntropy - klToUniform,
    mostInformation: Math.log(2 * spec.batchPerRank),
    featureStd,
    isMature: step >= (freezeSteps + warmupSteps) * stepsPerValue + patience,
  };
}

/** The shortest end of the looks that is a window; all of them if none is. */
function windowOf(looks: readonly Look[]): readonly Look[] {
  const start = looks.findLastIndex((_, index) => isWindow(looks.slice(index)));
  return looks.slice(Math.max(0, start));
}

function isWindow(looks: readonly Look[]): boolean {
  const [first, last] = [looks[0], looks.at(-1)];
  return looks.length >= minLooks && !!first && !!last && last.step - first.step >= minSteps;
}

function kindOf(
  spec: RunSpec,
  looks: readonly Look[],
  best: CollapseWatch["best"],
): CollapseKind | null {
  const now = looks.at(-1);
  if (!now || !isWindow(looks)) return null;
  const evidence = {
    spec,
    window: looks.map((one) => signsOf(spec, one)),
    last: signsOf(spec, now),
    best,
  };
  return collapseKinds.find((kind) => isCollapsed[kind](evidence)) ?? null;
}

interface Evidence {
  readonly spec: RunSpec;
  readonly window: readonly Signs[];
  /** The last of the window. */
  readonly last: Signs;
  readonly best: CollapseWatch["best"];
}

const isCollapsed: Record<CollapseKind, (evidence: Evidence) => boolean> = {
  uniform: ({ window, last, best }) =>
    window.every((s) => s.sharpness <= 0.05 && s.information <= 0.02 * s.mostInformation) &&
    isStuck(window.map(({ information }) => information)) &&
    isStuck(window.map(({ sharpness }) => sharpness)) &&
    // A centre takes away all that features have in common: while they are the same for every image, that is no loss.
    ((last.scoreSpread <= best.scoreSpread / 2 && last.featureStd >= 0.1) ||
      // No initialisation at a temperature of at most 0.1 is within 0.01 nats of uniform.
      best.sharpness <= 0.01 ||
      last.isMature),

  "single-prototype": ({ spec, window, last }) =>
    window.every((s) => s.entropy <= 0.1 && s.unevenness >= 0.75 && isPoor(s)) &&
    last.entropy <= 0.07 &&
    last.unevenness >= 0.8 &&
    // A centre that overshoots looks like it in a healthy run for some 20 steps, but then entropy is on its way back.
    last.entropy <= 1.1 * Math.min(...window.map(({ entropy }) => entropy)) + 0.005 &&
    // Sinkhorn takes away what all scores have in common: young runs have little else.
    (spec.loss.centering === "softmax" || last.isMature),

  "constant-features": ({ window, last, best }) =>
    window.every(({ featureStd }) => featureStd <= 0.05) &&
    isStuck(window.map(({ featureStd }) => featureStd)) &&
    (best.featureStd >= 0.2 || last.isMature),
};

/** Outputs tell about two groups of images apart, not more; with few crops, at most a bit more than half of what they could. */
function isPoor({ information, mostInformation }: Signs): boolean {
  return information <= Math.min(0.9, 0.6 * mostInformation);
}

/** The later half is no better than the earlier one; a tenth is noise, and so is what rounding leaves of nothing. */
function isStuck(values: readonly number[]): boolean {
  const half = Math.floor(values.length / 2);
  return mean(values.slice(-half)) <= 1.1 * mean(values.slice(0, half)) + 1e-4;
}

/** Well above the level that called it. */
function isOver(kind: CollapseKind, signs: Signs): boolean {
  switch (kind) {
    case "uniform":
      return signs.sharpness > 0.1 || signs.information > 0.04 * signs.mostInformation;
    case "single-prototype":
      return signs.entropy > 0.2 || signs.unevenness < 0.7;
    case "constant-features":
      return signs.featureStd > 0.1;
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
