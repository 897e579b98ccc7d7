/** Messages as short text, equal at both ends of a stream: what one process heard, another must have said. */
import type { Assignment, Decision, Held, Holding, Prepared } from "@paddock/proto";

interface StepOf {
  readonly generation: number;
  readonly step: number;
}

/** Names are unique in the fleet at one time, process ids on one machine. */
export function processOf(o: {
  readonly name: string;
  readonly host: string;
  readonly pid: number;
}): string {
  return `${o.name} (${o.host}, process ${o.pid})`;
}

export function decided({ generation, step, kind }: Pick<Decision, "kind"> & StepOf): string {
  return `decision ${generation}.${step} ${["?", "commit", "skip", "abort"][kind]}`;
}

export function assigned({ generation, worker, startStep }: Assignment): string {
  return `assignment ${generation} at ${startStep} as ${worker}`;
}

export function prepared({ generation, step }: Pick<Prepared, "generation" | "step">): string {
  return `prepared ${generation}.${step}`;
}

/** A file of a checkpoint, or all of it. */
export function saved({ generation, step }: StepOf): string {
  return `checkpoint ${generation}.${step}`;
}

export function hello(holdings: readonly Holding[]): string {
  return `hello with ${held(holdings)}`;
}

export function resting({ generation, holdings }: Held): string {
  return `rests after ${generation} with ${held(holdings)}`;
}

function held(holdings: readonly Holding[]): string {
  const all = holdings.map(
    ({ generation, worker, workers, step, prepared: isPrepared, shadow }) =>
      `${generation}.${step} ${worker}/${workers}+${shadow}${isPrepared ? " prepared" : ""}`,
  );
  return all.length === 0 ? "nothing" : all.join(", ");
}
