/**
 * One training step on this worker's shards: the second page a newcomer reads, after the model's `trainStep`.
 *
 *   gather units -> teacher, student, losses, backward (packages/model) -> gradients to the fixed tree
 *   -> reduced shard, its norms -> [coordinator decides] -> optimizer and EMA on the shard -> fresh weights
 *
 * `compute` leaves the state untouched, so a step can be dropped at any time before `update`.
 */

import {
  evenCuts,
  frozenUnitsOf,
  type GradNorms,
  gramUpdateDue,
  type Layout,
  layoutOf,
  PaddockError,
  type RunSpec,
  ranksOfCut,
  scalarsAt,
  shardOf,
  type Unit,
} from "@paddock/contract";
import {
  type Centers,
  normNodes,
  type RankBatch,
  trainStep,
  updateUnit,
  type VectorSpace,
} from "@paddock/model";
import { failpoint, failpointSync } from "@paddock/service-kit/failpoints";
import type { Membership, ShadowOf, StateOf, StepReport } from "../engine/calls.js";
import { type Codec, codecOf } from "./codec.js";
import { Gatherer, type UnitRequest } from "./gather.js";
import { OffenderWatch, type Seen } from "./offender.js";
import { PartTimer } from "./part-timer.js";
import { Reducer } from "./reduce.js";
import { Shadow } from "./shadow.js";

/** How a step reaches its peers (see HostCalls); `step` is part of every key. Not used with one worker, but for `phase`. */
export interface StepHost {
  fetchUnit(step: number, request: UnitRequest): Promise<Uint8Array[]>;
  allToAll(
    step: number,
    key: string,
    outgoing: readonly Uint8Array[],
    expectedBytes: readonly number[],
  ): Promise<Uint8Array[]>;
  phase(step: number, phase: string): void;
}

export interface StepRunnerOptions<V> {
  readonly spec: RunSpec;
  readonly membership: Membership;
  readonly state: StateOf<V>;
  /** Another worker's shards that are kept here too; null: none. */
  readonly shadow: ShadowOf<V> | null;
  readonly centers: Centers;
  readonly vectors: VectorSpace<V>;
  readonly host: StepHost;
  /** Milliseconds, monotone. */
  readonly now: () => number;
}

interface PreparedStep<V> {
  readonly step: number;
  /** This worker's shard of every unit's reduced gradient. */
  readonly gradients: ReadonlyMap<string, V>;
  /** The same of the shards that are kept for another worker; empty: none are. */
  readonly shadowGradients: ReadonlyMap<string, V>;
  /** To adopt with the update. */
  readonly centers: Centers;
}

export class StepRunner<V> {
  readonly layout: Layout;
  readonly gatherer: Gatherer<V>;
  readonly #o: StepRunnerOptions<V>;
  readonly #codec: Codec<V>;
  readonly #reducer: Reducer<V>;
  readonly #shadow: Shadow<V> | undefined;
  readonly #timer: PartTimer;
  readonly #watch: OffenderWatch;
  #step = 0;
  #centers: Centers;
  /** What the last `compute` left for `update`. */
  #prepared: PreparedStep<V> | undefined;

  constructor(options: StepRunnerOptions<V>) {
    const { spec, membership, state, shadow, vectors, host } = options;
    this.#o = options;
    this.layout = layoutOf(spec);
    this.#centers = options.centers;
    this.#codec = codecOf(spec.exchange.dtype, vectors);
    this.#timer = new PartTimer(options.now);
    this.gatherer = new Gatherer({
      layout: this.layout,
      frozen: frozenUnitsOf(spec),
      membership,
      state,
      codec: this.#codec,
      vectors,
      precision: spec.engine.precision,
      fetchUnit: (request) => host.fetchUnit(this.#step, request),
    });
    const { layout } = this;
    this.#shadow = shadow
      ? new Shadow({ layout, membership, shadow, codec: this.#codec, vectors })
      : undefined;
    const { worker, workers, cuts = evenCuts(spec.logicalRanks, workers) } = membership;
    const { start, end } = ranksOfCut(cuts, worker);
    const ranks = Array.from({ length: end - start }, (_, i) => start + i);
    this.#watch = new OffenderWatch(this.layout, ranks);
    this.#reducer = new Reducer({
      layout: this.layout,
      logicalRanks: spec.logicalRanks,
      membership,
      codec: this.#codec,
      vectors,
      allToAll: (key, outgoing, expected) => host.allToAll(this.#step, key, outgoing, expected),
      waiting: (work) => this.#timer.during("wait", work),
      watch: this.#watch,
    });
  }

  get centers(): Centers {
    return this.#centers;
  }

  /** Weights gathered from now on are those that were published for `step`. */
  setStep(step: number): void {
    this.#step = step;
  }

  /** Forward, backward, reduce-scatter. Leaves the reduced shard for `update` or `skip`. */
  async compute(step: number, scale: number, batches: readonly RankBatch[]): Promise<StepReport> {
    const { spec, host, membership, state, vectors } = this.#o;
    this.#step = step;
    await failpoint("worker.compute.begun");
    this.rest();
    if (this.#prepared) this.#dispose(this.#prepared);
    this.#prepared = undefined;
    this.#timer.enter("teacher");
    // fp16 products need the scale on the loss; other gradients only where they are rounded to travel.
    const lossScale = spec.engine.precision === "fp16" ? scale : 1;
    const { losses, monitors, centers } = await trainStep({
      spec,
      layout: this.layout,
      step,
      scalars: scalarsAt(spec, step),
      lossScale,
      batches,
      centers: this.#centers,
      deps: {
        gather: (side, unit) =>
          this.#timer.during("gather", () => this.gatherer.gather(side, unit)),
        prefetch: (side, unit) => this.gatherer.prefetch(side, unit),
        emitGradient: (unit, rank, grads) =>
          this.#timer.during("reduce", async () => {
            await failpoint("worker.backward.gradient");
            await this.#reducer.emit(unit, rank, grads, scale / lossScale);
          }),
        sumAcrossRanks: async (key, vectors) => {
          const sum = await this.#reducer.sum(`sum.${key}`, vectors);
          this.#watch.sum(key, vectors, sum);
          return sum;
        },
        phase: (name) => {
          this.#timer.enter(name);
          host.phase(step, name);
        },
      },
    });
    this.#timer.enter("reduce");
    host.phase(step, "reduce");
    const factor = 1 / (scale * spec.logicalRanks);
    const gradients = await this.#reducer.collect(factor, this.#shadow?.note);
    await failpoint("worker.gradient.reduced");
    const shadowed = this.#exchangeShadow(step, factor);
    const normRoots = normNodes(vectors, this.layout, ({ name, elements }) => ({
      start: shardOf(elements, membership.worker, membership.workers).start,
      grad: gradients.get(name) as V,
      student: state.student[name] as V,
    }));
    const shadowGradients = await this.#timer.during("wait", () => shadowed);
    const isGradientFinite = normRoots.every(({ sum }) => Number.isFinite(sum));
    const seen = await this.#watch.seen(losses);
    const inShard = isGradientFinite ? undefined : this.#firstBad(gradients);
    this.#prepared = { step, gradients, shadowGradients, centers };
    return {
      losses,
      monitors,
      normRoots,
      finite: isGradientFinite && seen.length === 0,
      offenders: inShard ? [...seen, inShard] : seen,
      seconds: this.#timer.take(),
      peakGatheredBytes: this.gatherer.takePeakBytes(),
    };
  }

  /** Clips, then optimizer step and EMA on this worker's shards, in place. */
  update(step: number, norms: GradNorms): void {
    const { spec, membership, state, shadow, vectors } = this.#o;
    const prepared = this.#takePrepared(step);
    const scalars = scalarsAt(spec, step);
    const { worker, workers } = membership;
    const updateShards = (
      of: number,
      { student, m, v, teacher }: StateOf<V>,
      gradients: ReadonlyMap<string, V>,
    ) => {
      for (const unit of this.layout.units) {
        const { name } = unit;
        const shard = {
          student: student[name] as V,
          m: m[name] as V,
          v: v[name] as V,
          teacher: teacher[name] as V,
          grad: gradients.get(name) as V,
        };
        const range = shardOf(unit.elements, of, workers);
        updateUnit(vectors, unit, range, shard, { spec, scalars, step, norms });
        failpointSync("worker.update.half");
      }
    };
    updateShards(worker, state, prepared.gradients);
    if (shadow) updateShards(shadow.worker, shadow.state, prepared.shadowGradients);
    if (gramUpdateDue(spec, step)) {
      this.#renewGramTeacher(state);
      if (shadow) this.#renewGramTeacher(shadow.state);
    }
    this.#centers = prepared.centers;
    this.#dispose(prepared);
  }

  /** The frozen gram teacher becomes a copy of the EMA teacher. */
  #renewGramTeacher({ frozen, teacher }: StateOf<V>): void {
    for (const [unit, shard] of Object.entries(frozen)) {
      this.#o.vectors.copy(shard, teacher[unit] as V);
    }
  }

  /** Frees what a step that failed has left. What is prepared stays. */
  rest(): void {
    this.#reducer.reset();
    this.gatherer.reset();
    this.#watch.reset();
  }

  /** The gradient of the shards that are kept for another worker, in exchange for the own one. */
  async #exchangeShadow(step: number, factor: number): Promise<ReadonlyMap<string, V>> {
    if (!this.#shadow) return new Map();
    return await this.#shadow.exchange(factor, (outgoing, expected) =>
      this.#o.host.allToAll(step, "shadow", outgoing, expected),
    );
  }

  /** Drops the gradient of a step whose update is skipped. */
  skip(step: number): void {
    this.#dispose(this.#takePrepared(step));
  }

  /** This worker's shards as its peers will gather them. */
  encodeWeights(): Map<string, Uint8Array> {
    const parts = new Map<string, Uint8Array>();
    for (const side of ["student", "teacher", "frozen"] as const) {
      for (const [unit, values] of Object.entries(this.#o.state[side])) {
        parts.set(`${side}/${unit}`, this.#codec.encode(values));
      }
    }
    return parts;
  }

  #dispose({ gradients, shadowGradients }: PreparedStep<V>): void {
    for (const gradient of gradients.values()) this.#o.vectors.dispose(gradient);
    for (const gradient of shadowGradients.values()) this.#o.vectors.dispose(gradient);
  }

  #takePrepared(step: number): PreparedStep<V> {
    const prepared = this.#prepared;
    if (prepared?.step !== step) {
      throw new PaddockError(
        "internal",
        `step ${step} is to be applied, ${prepared?.step} is prepared`,
      );
    }
    this.#prepared = undefined;
    return prepared;
  }

  /** The first parameter, units in backward's order, whose reduced gradient has a bad value in this worker's shard. */
  #firstBad(gradients: ReadonlyMap<string, V>): Seen | undefined {
    const { membership, vectors } = this.#o;
    const locate = (unit: Unit): string | undefined => {
      const { start } = shardOf(unit.elements, membership.worker, membership.workers);
      const gradient = gradients.get(unit.name) as V;
      const values = new Float32Array(vectors.size(gradient));
      vectors.read(gradient, values);
      const index = values.findIndex((value) => !Number.isFinite(value));
      if (index < 0) return undefined;
      const at = start + index;
      return unit.parameters.findLast((parameter) => parameter.offset <= at)?.name;
    };
    const places = new Map(this.layout.units.map((unit) => [unit, this.#watch.placeOf(unit.name)]));
    for (const [unit, order] of [...places].sort(([, a], [, b]) => a - b)) {
      const tensor = locate(unit);
      if (tensor) return { order, tensor, rank: -1 };
    }
    return undefined;
  }
}
