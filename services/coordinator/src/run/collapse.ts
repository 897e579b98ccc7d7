/**
 * Whether a run collapses, told from the signs that its steps carry. Pure. README, "Is it learning?", says what the signs mean.
 *
 * A healthy run also begins with outputs that are nearly uniform, or nearly the same for all images, and with features that hardly differ
 * (LayerScale starts at 1e-5). So a level alone is no evidence. Each kind needs its level throughout a window, no improvement in it,
 * and a third thing: that it was better before, or that it is worse than any initialisation, or that the warm-up is long over.
 *
 * The levels were set by runs of deploy/runs/fashion-mnist.yaml, healthy and collapsed on purpose (collapse.test.ts has their numbers).
 */
import type { CollapseKind, Monitor, RunSpec } from "@paddock/contract";

/** One look at the teacher. */
export interface Look {
  readonly step: number;
  readonly monitor: Monitor;
}

export interface CollapseWatch {
  /** The looks of the current window, oldest first. */
  readonly looks: readonly Look[];
  /** The best values so far. */
  readonly best: { readonly sharpness: number; readonly featureStd: number };
  /** What holds now, and since when. */
  readonly collapse: { readonly kind: CollapseKind; readonly step: number } | null;
}

export const initialWatch: CollapseWatch = {
  looks: [],
  best: { sharpness: 0, featureStd: 0 },
  collapse: null,
};

/** A window has at least so many looks and spans at least so many steps: a centre that overshoots recovers within 10. */
const minLooks = 3;
const minSteps = 20;

/** Steps after the learning rate's warm-up from which a run that has not begun to learn counts as collapsed. */
const patience = 200;

/** The watch after one more look. Looks of `step` and later, of an older generation, are void; values that are not finite say nothing. */
export function look(watch: CollapseWatch, spec: RunSpec, now: Look): CollapseWatch {
  if (!Object.values(now.monitor).every(Number.isFinite)) return watch;
  const looks = windowOf([...watch.looks.filter(({ step }) => step < now.step), now]);
  const signs = signsOf(spec, now);
  const best = {
    sharpness: Math.max(watch.best.sharpness, signs.sharpness),
    featureStd: Math.max(watch.best.featureStd, signs.featureStd),
  };
  const { collapse } = watch;
  if (collapse && !isOver(collapse.kind, signs)) return { looks, best, collapse };
  const kind = kindOf(isWindow(looks) ? looks.map((one) => signsOf(spec, one)) : [], best);
  return { looks, best, collapse: kind ? { kind, step: now.step } : null };
}

/** A look in quantities that compare between runs. */
interface Signs {
  /** Nats by which an output is sharper than uniform: ln K - H. */
  readonly sharpness: number;
  /** Of ln K: entropy of an output; KL of the mean output to uniform. */
  readonly entropy: number;
  readonly unevenness: number;
  /** What outputs say about their image, of the ln N that they could say about N crops. */
  readonly information: number;
  readonly featureStd: number;
  /** The warm-up is long over. */
  readonly isMature: boolean;
}

function signsOf(spec: RunSpec, { step, monitor }: Look): Signs {
  const uniform = Math.log(spec.heads.dino.prototypes);
  const { teacherEntropy, klToUniform, featureStd } = monitor;
  const { freezeSteps, warmupSteps, stepsPerValue } = spec.schedules.learningRate;
  const information = uniform - teacherEntropy - klToUniform;
  return {
    sharpness: uniform - teacherEntropy,
    entropy: teacherEntropy / uniform,
    unevenness: klToUniform / uniform,
    information: information / Math.log(2 * spec.batchPerRank),
    featureStd,
    isMature: step >= (freezeSteps + warmupSteps) * stepsPerValue + patience,
  };
}

/** The shortest end of the looks that is a window; all of them if none is. */
function windowOf(looks: readonly Look[]): readonly Look[] {
  return looks.slice(
    Math.max(
      0,
      looks.findLastIndex((_, start) => isWindow(looks.slice(start))),
    ),
  );
}

function isWindow(looks: readonly Look[]): boolean {
  const [first, last] = [looks[0], looks.at(-1)];
  return looks.length >= minLooks && !!first && !!last && last.step - first.step >= minSteps;
}

function kindOf(window: readonly Signs[], best: CollapseWatch["best"]): CollapseKind | null {
  const last = window.at(-1);
  if (!last) return null;
  const always = (holds: (signs: Signs) => boolean): boolean => window.every(holds);
  /** The later half of the window is no better than the earlier one; a tenth is noise, and so is what rounding leaves of nothing. */
  const stuck = (value: (signs: Signs) => number): boolean => {
    const half = Math.floor(window.length / 2);
    const earlier = mean(window.slice(0, half).map(value));
    return mean(window.slice(-half).map(value)) <= 1.1 * earlier + 1e-4;
  };

  const isUniform =
    always(({ sharpness, information }) => sharpness <= 0.05 && information <= 0.02) &&
    stuck(({ information }) => information) &&
    stuck(({ sharpness }) => sharpness) &&
    // No initialisation at a temperature of at most 0.1 is within 0.01 nats of uniform.
    (last.sharpness <= best.sharpness / 2 || always((s) => s.sharpness <= 0.01) || last.isMature);
  if (isUniform) return "uniform";

  const isSingle =
    always((s) => s.entropy <= 0.1 && s.unevenness >= 0.75 && s.information <= 0.25) &&
    last.entropy <= 0.05 &&
    last.unevenness >= 0.85 &&
    stuck(({ entropy }) => entropy);
  if (isSingle) return "single-prototype";

  const isConstant =
    always(({ featureStd }) => featureStd <= 0.05) &&
    stuck(({ featureStd }) => featureStd) &&
    (best.featureStd >= 0.2 || last.isMature);
  return isConstant ? "constant-features" : null;
}

/** Well above the level that called it. */
function isOver(kind: CollapseKind, signs: Signs): boolean {
  switch (kind) {
    case "uniform":
      return signs.sharpness > 0.1 || signs.information > 0.04;
    case "single-prototype":
      return signs.entropy > 0.2 || signs.unevenness < 0.7;
    case "constant-features":
      return signs.featureStd > 0.1;
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
