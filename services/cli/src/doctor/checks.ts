/** What a run needs of this machine, one probe each. A probe does what the run will do, and undoes it. */
import { mkdir, open, readdir, rm, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, freemem, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { findDemoImages, openDataset } from "@paddock/data";
import { describeEngines, type EngineDescription, whyNoGroups } from "@paddock/engine";
import { adviseHugePages } from "@paddock/engine/pages";
import { listenError, openRedis } from "@paddock/service-kit";
import { storeOf } from "@paddock/service-kit/checkpoint-store";
import { bytes, count } from "../display/format.js";
import type { RunPlan } from "../plan/plan.js";
import type { Healthy } from "./check.js";

const oldestNode: readonly [number, number] = [20, 19];
const neededBytes = 2 ** 30;

export async function checkNode(): Promise<Healthy> {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1])) {
    throw new PaddockError(
      "version-mismatch",
      `expected Node ${oldestNode.join(".")} or newer, received ${process.version}; install it from https://nodejs.org`,
    );
  }
  return { detail: `${process.version}, ${process.platform} ${process.arch}` };
}

/** Starts, or asks, the Redis that a run would take. @param dir made for it, and removed */
export async function checkRedisRoute(url: string | undefined, dir: string): Promise<Healthy> {
  try {
    const redis = await openRedis({ url, dir });
    await redis.close();
    return { detail: redis.description };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Room for checkpoints, and a file that survives fsync. */
export async function checkDisk(runDir: string): Promise<Healthy> {
  const probe = join(runDir, `.doctor-${process.pid}`);
  const started = performance.now();
  try {
    await mkdir(runDir, { recursive: true });
    const file = await open(probe, "w");
    await file.writeFile(new Uint8Array(2 ** 20));
    await file.sync();
    await file.close();
  } catch (error) {
    throw unwritable(runDir, error);
  } finally {
    await rm(probe, { force: true }).catch(() => undefined);
  }
  const fsyncMs = performance.now() - started;
  const { bavail, bsize } = await statfs(runDir);
  const free = bavail * bsize;
  if (free < neededBytes) {
    throw new PaddockError(
      "disk-unavailable",
      `expected 1 GiB free for checkpoints in ${runDir}, received ${gibibytes(free)}; free some space, or choose another --run-dir`,
    );
  }
  const pages =
    adviseHugePages(new Uint8Array(4 * 2 ** 20)) !== undefined
      ? "checkpoints through pages of 2 MiB"
      : "checkpoints through pages of 4 KiB, which is slower (npm run build:native)";
  return {
    detail: `${runDir}: ${gibibytes(free)} free, 1 MiB written and synced in ${fsyncMs.toFixed(1)} ms; ${pages}`,
  };
}

/** A small object that is written, listed and deleted. @param place `checkpoint.storage` */
export async function checkStorage(place: string): Promise<Healthy> {
  const started = performance.now();
  await storeOf(place).prepare(place);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  return { detail: `${place}: written, listed and deleted in ${seconds} s` };
}

function unwritable(runDir: string, cause: unknown): PaddockError {
  return new PaddockError(
    "disk-unavailable",
    `expected to write in ${runDir}, received: ${PaddockError.from(cause).message}; choose another --run-dir`,
    { cause },
  );
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

/** Opens the training images, as a run does. @param path undefined: those the setup installs */
export async function checkDataset(path: string | undefined, cwd: string): Promise<Healthy> {
  const folder = path === undefined ? findDemoImages(join(cwd, ".data"))?.path : resolve(cwd, path);
  if (folder === undefined) {
    throw new PaddockError(
      "data-unavailable",
      "expected the demo's images, found none; run npm run setup, or name a folder with --data",
    );
  }
  const kind = (await isIdx(folder)) ? "idx" : "folder";
  const data = { kind, path: folder, validationPath: null, maxSide: 16384, threads: 1 } as const;
  const train = await openDataset(data, "train");
  const classes = train.classes ? `${train.classes.length} classes` : "no labels";
  return { detail: `${folder}: ${count(train.count)} training images, ${classes} (${kind})` };
}

async function isIdx(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch(() => []);
  return names.some((name) => name.includes("idx3-ubyte"));
}

/**
 * Which engine `auto` takes, on which device, with how many threads, and what else there is. One always works; the
 * advice is for when it is the slow one.
 */
export async function checkEngines(): Promise<Healthy> {
  const engines = describeEngines();
  const best = engines.find(({ available }) => available);
  if (best === undefined) {
    throw new PaddockError(
      "engine-unavailable",
      `expected an engine, found none (${engines.map(({ name, note }) => `${name}: ${note}`).join(", ")}); run npm run setup`,
    );
  }
  const [torch] = engines;
  const slow =
    best.name === "wasm" && torch
      ? `faster with torch (${torch.note}): run npm run setup`
      : undefined;
  const others = engines.filter((engine) => engine !== best).map(inWords);
  return { detail: [inWords(best), ...others].join("; else "), advice: slow };
}

/** E.g. `torch (libtorch 2.13.0) on cpu, engine.threads of 2 cores per worker: found by python3`. */
function inWords({ name, available, version, device, threads, note }: EngineDescription): string {
  if (!available) return `no ${name}: ${note}`;
  const used = threads === "one" ? "1" : "engine.threads";
  return `${name} (${version}) on ${device}, ${used} of ${availableParallelism()} cores per worker: ${note}`;
}

/** What this process may have of the machine's memory: a container's limit counts. */
function memoryLimit(): number {
  // 0 or beyond all memory: there is no limit.
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/**
 * A run's memory without activations, all its workers on this machine, against what there is. More than there is is advice and no failure:
 * workers may be elsewhere.
 * @param limit bytes that there are
 */
export async function checkMemory(plan: RunPlan, limit = memoryLimit()): Promise<Healthy> {
  const { name, workers } = plan;
  const total = workers.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  const most = Math.max(...workers.map(({ memoryBytes }) => memoryBytes));
  const fleet = workers.length === 1 ? "1 worker" : `${workers.length} workers`;
  const detail = `${name}: ${bytes(total)} for ${fleet} (at most ${bytes(most)} each) without activations, of ${bytes(limit)} (${bytes(freemem())} free)`;
  if (total <= limit) return { detail };
  const advice =
    most > limit
      ? `it does not fit, nor does one of its workers: use more workers on other machines, or a smaller model (paddock plan shows the parts)`
      : `it does not fit with all workers on this machine: at most ${Math.floor(limit / most)} of them do, the others need machines of their own`;
  return { detail, advice };
}

/** Whether the coordinator could listen there. */
export async function checkPort(host: string, port: number): Promise<Healthy> {
  const server = createServer();
  const failure = await new Promise<Error | undefined>((resolve) => {
    server.once("error", resolve);
    server.listen(port, host, () => resolve(undefined));
  });
  if (failure) throw listenError(host, port, failure);
  await new Promise((resolve) => server.close(resolve));
  return { detail: port === 0 ? `any free port of ${host}` : `${host}:${port} is free` };
}

/** What exchange.kind=collective would do here. Redis always works; the advice is for when it is the slower one. */
export async function checkCollectives(): Promise<Healthy> {
  const missing = whyNoGroups();
  if (missing === undefined)
    return { detail: "Gloo: exchange.kind=collective goes worker to worker" };
  return {
    detail: `none, exchange.kind=collective would go through Redis (${missing})`,
    advice: "faster with Gloo: install libgloo-dev, then npm run setup",
  };
}
