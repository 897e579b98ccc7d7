/** What surviving costs: the main job with shadows and without, and against another checkout of Paddock (--before), 2 workers. */
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { openMainJob } from "./harness/main-job.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, alternate, pick, type Side } from "./harness/sides.js";

const workers = 2;
const steps = 100;

export const redundancyBench: Bench = {
  name: "redundancy",
  summary:
    "images/s of the main job (cases shadow-none, now-before, shadow-before): shadow against none, and both against the checkout --before",
  async run(context) {
    const none = () => openMainJob("torch", workers, steps);
    const shadow = () =>
      openMainJob("torch", workers, steps, { overrides: ["fleet.redundancy=shadow"] });
    const title = "main job, 2 workers:";
    if (isAsked(context, "shadow-none")) {
      await compare(context, `${title} shadow / none`, shadow, none);
    }
    const { before } = context;
    if (before === undefined) {
      context.say("without --before DIR, a built checkout, there is nothing older to compare with");
      return;
    }
    const old = () => openMainJob("torch", workers, steps, { checkout: before });
    if (isAsked(context, "now-before")) await compare(context, `${title} now / before`, none, old);
    if (isAsked(context, "shadow-before")) {
      await compare(context, `${title} shadow / before`, shadow, old);
    }
  },
};

async function compare(
  context: BenchContext,
  what: string,
  openOurs: () => Promise<Side>,
  openPeer: () => Promise<Side>,
): Promise<void> {
  const [ours, peer] = [await openOurs(), await openPeer()];
  try {
    const answers = await alternate(ours, peer, { do: "run" }, { ...context, warmup: 0 });
    // An older engine may round differently.
    const [mine = Number.NaN, theirs = Number.NaN] = [
      answers.ours[0]?.["loss"],
      answers.peer[0]?.["loss"],
    ];
    if (!(Math.abs(mine - theirs) < 1e-5 * Math.abs(theirs))) {
      throw new Error("the two sides have not the same loss: they do not do the same work");
    }
    const perSecond = (answer: Answer) => (1000 * (answer["images"] ?? 0)) / (answer["ms"] ?? 0);
    const [a, b] = [pick(answers.ours, perSecond), pick(answers.peer, perSecond)];
    context.row(rowOf({ bench: "redundancy", case: what, unit: "images/s" }, a, b));
  } finally {
    await Promise.all([ours.close(), peer.close()]);
  }
}
