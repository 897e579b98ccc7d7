/**
 * One training step of DINO, DINOv2 or DINOv3 on the local logical ranks: the page to read first.
 *
 * Units (embedding, blocks, norm, heads) are the outer loop and ranks the inner one: a unit's parameters are gathered, used
 * by every local rank, and released. Ranks never share a tensor operation, so a rank's numbers are the same whichever
 * ranks are local. Backward is explicit, unit by unit in reverse.
 *
 *   teacher   global crops, no masks -> scores -> targets (Sinkhorn-Knopp over all ranks, or softmax centring);
 *             EMA of the student, or a frozen one (distillation); the Gram loss has its own, or shares the EMA teacher
 *   student   global crops with masks and local crops, packed into one row sequence -> normed cls and masked patches
 *   losses    DINO over crop pairs, KoLeo within a rank or a group of ranks, iBOT at masked patches, Gram; backward through the heads
 *             at once
 *   backward  norm, blocks in reverse, embedding; a unit's gradient is handed over as soon as it is there
 */

import { makeHeld, type StepContext, visitsOf, walkUnits } from "./step/context.js";
import type { TrainStepArgs, TrainStepResult } from "./step/contract.js";
import { frozenGramTargets } from "./step/gram.js";
import { readWatch, watchOf } from "./step/monitor.js";
import { objective, readLosses } from "./step/objective.js";
import { studentBackward, studentForward } from "./step/student.js";
import { targetsOf, teacherForward } from "./step/teacher.js";
import { vitConfigOf } from "./vit/config.js";
import { drawRopeOf } from "./vit/rope.js";
import { chooseSequencesOf, drawUniformsOf } from "./vit/stochastic-depth.js";

/**
 * Computes the losses and gradients of the local ranks. Each emitted gradient belongs to its rank's own loss: the caller
 * divides the sum over ranks by their number. Leaves no tensor behind, also when a dependency fails.
 */
export async function trainStep(args: TrainStepArgs): Promise<TrainStepResult> {
  const { spec, step, scalars, batches, deps } = args;
  const config = vitConfigOf(spec);
  const held = makeHeld();
  const watch = watchOf(spec, step);
  const ctx: StepContext = {
    spec,
    step,
    config,
    scalars,
    lossScale: args.lossScale ?? 1,
    batches,
    deps,
    chooseSequences: args.chooseSequences ?? chooseSequencesOf(spec.seed, step),
    drawUniforms: args.drawUniforms ?? drawUniformsOf(spec.seed, step),
    drawRope: args.drawRope ?? drawRopeOf(spec.model.rope, spec.seed, step),
    walk: walkUnits(deps, visitsOf(spec)),
    ...(args.observe ? { observe: args.observe } : {}),
    held,
    globalPatches: held.hold([]),
    watch: watch && held.hold(watch),
  };
  try {
    deps.phase?.("teacher");
    const { gram, ...scores } = await teacherForward(ctx);
    deps.phase?.("loss");
    const { targets, centers: readCenters } = await targetsOf(ctx, scores, args.centers);
    const gramTargets = gram ?? (await frozenGramTargets(ctx));
    deps.phase?.("student");
    const students = await studentForward(ctx);
    deps.phase?.("loss");
    const outcome = await objective(ctx, students, targets, gramTargets);
    deps.phase?.("backward");
    await studentBackward(ctx, students, outcome.dh);
    const centers = await readCenters();
    const losses = await readLosses(ctx, outcome);
    const monitors = await readWatch(ctx);
    return { losses, monitors, centers };
  } catch (error) {
    ctx.held.disposeAll();
    throw error;
  }
}
