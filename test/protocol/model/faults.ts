/** What may go wrong, as often as the bounds allow. */
import type { Effect } from "@paddock/coordinator";
import { coordinatorEvent, crashCoordinator } from "./coordinator-side.js";
import {
  breakSession,
  endProcess,
  finishFile,
  workerEvent,
} from "./worker-side.js";
import {
  type Context,
  type Draft,
  type FaultKind,
  type ModelWorker,
  setWorker,
  spend,
  type World,
} from "./world.js";

interface Fault {
  readonly label: string;
  readonly isFault: true;
  readonly run: (draft: Draft, effectsBeforeCrash?: number) => readonly Effect[] | undefined;
}

export function faultActions(context: Context, world: World): Fault[] {
  const { coordinator, faultsLeft } = world;
  if (faultsLeft === 0 || (coordinator !== null && coordinator.outcome !== null)) return [];
  const { kinds } = context.bounds;
  const workers = world.workers.flatMap((worker) => workerFaults(context, world, worker));
  const all = [...workers, ...sessionFaults(world), ...coordinatorFaults(context, world)];
  return all.filter(({ kind }) => kinds.includes(kind)).map(({ fault }) => fault);
}

interface OfKind {
  readonly kind: FaultKind;
  readonly fault: Fault;
}

function fault(kind: FaultKind, label: string, run: (draft: Draft) => void): OfKind {
  return {
    kind,
    fault: {
      label: `FAULT ${label}`,
      isFault: true,
      run: (draft) => {
        spend(draft, kind);
        run(draft);
        return undefined;
      },
    },
  };
}

function workerFaults(context: Context, world: World, worker: ModelWorker): OfKind[] {
  const { index, alive, paused, state, task, files } = worker;
  if (!alive) return [];
  const faults = [fault("worker-crash", `w${index} crashes`, (draft) => endProcess(draft, index))];
  if (paused) return faults;
  const stop = (draft: Draft): void => setWorker(draft, index, { paused: true });
  faults.push(fault("pause", `w${index} is stopped`, stop));
  if (state.leaving === null && state.link === "up" && world.coordinator) {
    const leave = (draft: Draft): void =>
      workerEvent(context, draft, index, { kind: "leave", reason: "SIGTERM" });
    faults.push(fault("leave", `w${index} is told to leave`, leave));
  }
  if (state.current?.mode === "running" && task?.kind !== "apply") {
    const { generation } = state.current.assignment;
    const fail = (draft: Draft): void => {
      setWorker(draft, index, { task: null });
      const failure = { code: "redis-unavailable", message: "away" } as const;
      workerEvent(context, draft, index, { kind: "failed", generation, step: 0, ...failure });
    };
    faults.push(fault("failure", `w${index} fails`, fail));
  }
  if (files.length > 0) {
    const lose = (draft: Draft): void => finishFile(draft, index, false);
    faults.push(fault("checkpoint-failure", `w${index} cannot write a file`, lose));
  }
  return faults;
}

function sessionFaults({ sessions }: World): OfKind[] {
  return sessions
    .filter(({ end, workerSide, coordinatorSide }) => !end && workerSide && coordinatorSide)
    .map(({ id, worker }) =>
      fault("cut", `the connection of w${worker} is cut`, (draft) =>
        breakSession(draft, id, { kind: "cut", code: "worker-lost" }),
      ),
    );
}

function coordinatorFaults(context: Context, { coordinator }: World): OfKind[] {
  if (!coordinator) return [];
  const faults = [fault("coordinator-crash", "the coordinator crashes", crashCoordinator)];
  const { wanted } = coordinator;
  for (const workers of [wanted - 1, wanted + 1]) {
    if (workers < 1 || workers > context.bounds.workers) continue;
    const scale = (draft: Draft): void =>
      void coordinatorEvent(context, draft, { kind: "scale", workers });
    faults.push(fault("scale", `scale to ${workers}`, scale));
  }
  if (coordinator.draining === null) {
    const drain = (draft: Draft): void =>
      void coordinatorEvent(context, draft, { kind: "drain", reason: "told so" });
    faults.push(fault("drain", "drain", drain));
  }
  return faults;
}
