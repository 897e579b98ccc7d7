/** The faults: at failpoints, and from outside at any moment. */
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Rng } from "@paddock/contract";
import { type Fleet, freezeMs, redisDownMs, type WorkerSlot } from "./fleet.js";
import type { Fault, Injected } from "./inject.js";
import { allPointFaults, armPoint, factsOf, type PointFault } from "./points.js";
import type { Role } from "./role.js";
import { mostWorkers } from "./spec.js";

export function pointFault(fault: PointFault, rng: Rng): Fault {
  return {
    name: `${fault.point} ${fault.action}`,
    async inject(fleet) {
      const known = fleet.hits.length;
      const target = await armPoint(fleet, fault, rng);
      if (!target) return undefined;
      return {
        actedMs: () =>
          fleet.hits
            .slice(known)
            .find(({ failpoint, action }) => failpoint === fault.point && action !== "log")?.unixMs,
        isOver: () => !fleet.isAnyFrozen,
      };
    },
  };
}

type Outside = (fleet: Fleet, rng: Rng) => Injected | undefined | Promise<Injected | undefined>;

/** Kinds of faults that need no failpoint, with how often each is drawn. */
const outside: Readonly<Record<string, { readonly weight: number; readonly inject: Outside }>> = {
  "worker kill": { weight: 3, inject: (fleet, rng) => kill(anyWorker(fleet, rng)?.role) },
  "worker freeze": {
    weight: 2,
    inject: (fleet, rng) => freeze(fleet, anyWorker(fleet, rng)?.role),
  },
  "worker leave": { weight: 2, inject: leave },
  "worker cut": {
    weight: 2,
    inject: (fleet, rng) => now(() => anyWorker(fleet, rng)?.proxy.cut()),
  },
  "worker half-open": { weight: 1, inject: halfOpen },
  "worker late": { weight: 1, inject: late },
  "two workers kill": { weight: 1, inject: killTwo },
  "all kill": { weight: 1, inject: killAll },
  "coordinator kill": { weight: 2, inject: (fleet) => kill(fleet.coordinator) },
  "coordinator freeze": { weight: 1, inject: (fleet) => freeze(fleet, fleet.coordinator) },
  scale: { weight: 2, inject: scale },
  "redis restart": { weight: 1, inject: (fleet) => later(fleet.redis.restart(redisDownMs)) },
  "redis flush": { weight: 1, inject: (fleet) => later(fleet.redis.flush()) },
  "redis cut": { weight: 1, inject: (fleet) => later(fleet.redis.cut()) },
  "flip in an old checkpoint": { weight: 1, inject: flip },
};

/** A random fault: half of them at failpoints. */
export function drawFault(rng: Rng): Fault {
  if (rng.below(2) === 0) {
    const points = allPointFaults().filter(({ point }) => factsOf(point).at !== "end");
    return pointFault(points[rng.below(points.length)] as PointFault, rng);
  }
  const kinds = Object.entries(outside).flatMap(([name, { weight, inject }]) =>
    Array.from({ length: weight }, () => ({ name, inject })),
  );
  const { name, inject } = kinds[rng.below(kinds.length)] as (typeof kinds)[number];
  return { name, inject: (fleet) => inject(fleet, rng) };
}

function anyWorker(fleet: Fleet, rng: Rng): WorkerSlot | undefined {
  const { living } = fleet;
  return living[rng.below(Math.max(1, living.length))];
}

function now(work: () => void): Injected {
  work();
  const actedMs = Date.now();
  return { actedMs: () => actedMs };
}

function later(work: Promise<void>): Injected {
  const actedMs = Date.now();
  let isOver = false;
  void work.then(() => {
    isOver = true;
  });
  return { actedMs: () => actedMs, isOver: () => isOver };
}

function kill(role: Role | undefined): Injected | undefined {
  return role?.pid === undefined ? undefined : now(() => role.signal("SIGKILL"));
}

function killTwo(fleet: Fleet, rng: Rng): Injected | undefined {
  const { living } = fleet;
  const order = [...rng.permutation(living.length)].slice(0, 2);
  return now(() => {
    for (const i of order) living[i]?.role.signal("SIGKILL");
  });
}

/** A power cut. */
function killAll(fleet: Fleet): Injected {
  return now(() => {
    fleet.coordinator.signal("SIGKILL");
    for (const { role } of fleet.living) role.signal("SIGKILL");
  });
}

function freeze(fleet: Fleet, role: Role | undefined): Injected | undefined {
  if (role?.pid === undefined) return undefined;
  const { actedMs } = now(() => fleet.freeze(role, freezeMs));
  return { actedMs, isOver: () => !fleet.isAnyFrozen };
}

function halfOpen(fleet: Fleet, rng: Rng): Injected | undefined {
  const worker = anyWorker(fleet, rng);
  return worker && later(worker.proxy.hold(freezeMs));
}

function late(fleet: Fleet, rng: Rng): Injected | undefined {
  const worker = anyWorker(fleet, rng);
  return worker && later(worker.proxy.delay(50 + rng.below(300), 1000));
}

/** One worker says goodbye and another one comes in its place. */
function leave(fleet: Fleet, rng: Rng): Injected | undefined {
  const chosen = anyWorker(fleet, rng);
  return chosen && now(() => chosen.role.signal("SIGTERM"));
}

async function scale(fleet: Fleet, rng: Rng): Promise<Injected | undefined> {
  const slots = [...fleet.slots.entries()].filter(([, { isWanted }]) => isWanted);
  const wanted = 1 + rng.below(Math.min(mostWorkers, slots.length + 2));
  if (!(await fleet.scale(wanted))) return undefined;
  const actedMs = Date.now();
  for (const [slot] of slots.slice(wanted)) fleet.leave(slot, "SIGTERM");
  for (let slot = 0; fleet.living.length < wanted && slot < mostWorkers; slot++) {
    await fleet.join(slot);
  }
  return { actedMs: () => actedMs };
}

/** One bit of a file that no loading will need: not in the newest checkpoint. */
function flip(fleet: Fleet, rng: Rng): Injected | undefined {
  const newest = fleet.ledger.records.findLast(({ kind }) => kind === "checkpoint");
  const root = join(fleet.runDir, "checkpoints");
  if (newest?.kind !== "checkpoint") return undefined;
  const old = readdirSync(root).filter((name) => Number(name) < newest.step);
  const folder = old[rng.below(Math.max(1, old.length))];
  if (folder === undefined) return undefined;
  return now(() => {
    try {
      const files = readdirSync(join(root, folder));
      flipBit(join(root, folder, files[rng.below(files.length)] as string), rng);
    } catch {
      // It has just been deleted: nothing was damaged.
    }
  });
}

function flipBit(path: string, rng: Rng): void {
  const at = rng.below(statSync(path).size);
  const byte = new Uint8Array(1);
  const file = openSync(path, "r+");
  try {
    readSync(file, byte, 0, 1, at);
    byte[0] = (byte[0] as number) ^ (1 << rng.below(8));
    writeSync(file, byte, 0, 1, at);
  } finally {
    closeSync(file);
  }
}
