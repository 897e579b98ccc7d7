/** One of the two workers of the bench `checkpoint`: saves and loads through the product's checkpoint thread, and writes and reads raw. */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { startCheckpointThread } from "@paddock/worker";
import { exampleState, shardFileOf, shardsOf, wantedOf } from "./harness/checkpoints.js";
import { type Answer, type Command, serveCommands } from "./harness/sides.js";

const [index = "0", unitCount = "1", elementCount = "1", folder = "."] = process.argv.slice(2);
const worker = Number(index);
const state = exampleState(Number(unitCount), Number(elementCount), 2);
const shards = shardsOf(state, worker);
const targets = shardsOf(state, worker, "empty");
const thread = startCheckpointThread();
const blockBytes = 8 * 2 ** 20;
/** Aligned to a page, as O_DIRECT wants it. */
const block = alignedBlock();

function alignedBlock(): Buffer {
  type Wasm = { Memory: new (pages: object) => { readonly buffer: ArrayBuffer } };
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: Wasm };
  return Buffer.from(new WebAssembly.Memory({ initial: 128, maximum: 128 }).buffer).fill(7);
}

const directoryOf = ({ step }: Command): string => join(folder, String(step));
/** Of the same size. A file of its own: a virtual machine's host may have in memory what was read last. */
const rawPath = join(folder, `raw-${worker}`);

function begin(command: Command) {
  const directory = directoryOf(command);
  return thread.save(
    shardFileOf(state, shards, { directory, step: Number(command["step"]), worker }),
  );
}

/** What this side has for the manifest, where the parent finds it. */
async function finish(command: Command, written: ReturnType<typeof begin>["written"]) {
  const file = await written;
  writeFileSync(join(folder, `file-${worker}.json`), JSON.stringify({ ...file, worker }));
  mkdirSync(directoryOf(command), { recursive: true });
  return file;
}

function memory(field: "VmRSS" | "VmHWM"): number {
  const text = readFileSync("/proc/self/status", "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(text)?.[1]) / 1024;
}

async function timed(work: () => Promise<unknown> | unknown): Promise<Answer> {
  writeFileSync("/proc/self/clear_refs", "5");
  const before = memory("VmRSS");
  const start = performance.now();
  await work();
  return { ms: performance.now() - start, extraMiB: memory("VmHWM") - before };
}

function bytesOfShard(): number {
  return shards.reduce((sum, { data }) => sum + data.byteLength, 0);
}

function writeRaw(path: string, flags: number): void {
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | flags);
  for (let left = bytesOfShard(); left > 0; left -= blockBytes) writeSync(file, block);
  fsyncSync(file);
  closeSync(file);
}

function readRaw(path: string): void {
  const file = openSync(path, "r");
  while (readSync(file, block) > 0);
  closeSync(file);
}

/** Keeps a core busy, as a step's computation does. Returns something, so that it is not optimised away. */
function compute(rounds: number): number {
  let x = 0;
  for (let i = 0; i < rounds * 1e6; i++) x = Math.fround(x * 0.999 + i);
  return x;
}

/** One step: computation, which does not touch the state; then the update, which must wait for the copy. */
async function steps(command: Command, save: boolean): Promise<Answer> {
  const [count, rounds] = [Number(command["steps"]), Number(command["rounds"])];
  let blocked = 0;
  const wait = async <T>(work: () => Promise<T> | T): Promise<T> => {
    const start = performance.now();
    const value = await work();
    blocked += performance.now() - start;
    return value;
  };
  const start = performance.now();
  const saving = save ? await wait(() => begin(command)) : undefined;
  for (let i = 0; i < count; i++) {
    compute(rounds);
    await wait(() => saving?.copied);
    for (const { data } of shards) data[0] = i;
  }
  const ms = performance.now() - start;
  if (saving) await finish(command, saving.written);
  return { ms, blockedMs: blocked };
}

await serveCommands({
  setup: () => ({ bytes: bytesOfShard() }),
  save: (command) => timed(() => finish(command, begin(command).written)),
  raw: (command) => timed(() => writeRaw(rawPath, command["direct"] ? constants.O_DIRECT : 0)),
  load: (command) =>
    timed(() =>
      thread.load({
        directory: directoryOf(command),
        expected: { ...state.expected, sha256: manifestHash(command) },
        wanted: wantedOf(state, targets),
      }),
    ),
  read: () => timed(() => readRaw(rawPath)),
  check() {
    const wrong = targets.findIndex(
      ({ data }, i) => Buffer.compare(view(data), view(shards[i]?.data ?? data)) !== 0,
    );
    return { wrong };
  },
  steps: (command) => steps(command, command["save"] === true),
});
await thread.terminate(new PaddockError("stale-generation", "the bench is over"));

function view({ buffer, byteOffset, byteLength }: Float32Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

function manifestHash(command: Command): string {
  const text = readFileSync(join(directoryOf(command), "manifest.json"));
  return createHash("sha256").update(text).digest("hex");
}
