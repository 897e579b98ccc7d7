/**
 * Damage to a checkpoint: random single-bit flips over all its files, manifest.json included, and files cut at every 4 KiB. Ours, as the
 * two workers of a run load it, against PyTorch's DCP and plain safetensors, which are given fewer flips: each of theirs costs more.
 * A checkpoint counts as loaded when no error was thrown. The intact one must load before and after.
 */
import { createHash } from "node:crypto";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Manifest } from "@paddock/contract";
import { loadCheckpoint, writeShardFile } from "@paddock/worker";
import type { Bench, BenchContext } from "./harness/bench.js";
import { Unavailable } from "./harness/bench.js";
import {
  exampleState,
  manifestOf,
  shardFileOf,
  shardsOf,
  wantedOf,
} from "./harness/checkpoints.js";
import { findPython, pythonWithTorch } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, openPeer } from "./harness/sides.js";

const flips = 10_000;
const peerFlips = 400;
const cutBytes = 4096;
const workers = 2;
/** Of one unit; there are three. */
const elements = 24_001;

interface Result {
  readonly tried: number;
  readonly detected: number;
}

export const corruptionBench: Bench = {
  name: "corruption",
  summary:
    "flipped bits and cut files of a checkpoint: how many are found, against DCP and safetensors",
  async run(context) {
    const python = pythonWithTorch(context.python);
    if (!findPython(python, ["torch", "safetensors", "numpy"])) {
      throw new Unavailable(`expected safetensors and numpy in ${python}; pip install them there`);
    }
    const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
    try {
      const ours = await damageOurs(context, join(folder, "ours"));
      for (const name of ["dcp", "safetensors"]) {
        const peer = openPeer(python, "corruption.py", [name, join(folder, name)]);
        const theirs = await peer.ask({ do: "damage", flips: peerFlips, cutBytes });
        await peer.close();
        report(context, name, ours, theirs);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

function report(
  context: BenchContext,
  name: string,
  ours: { readonly flips: Result; readonly cuts: Result },
  theirs: Answer,
): void {
  for (const what of ["flips", "cuts"] as const) {
    const [tried = 0, detected = 0] = [theirs[`${what}Tried`], theirs[`${what}Detected`]];
    const label = what === "flips" ? "bit flips found" : "cuts found";
    context.say(
      `${label}: ours ${ours[what].detected} of ${ours[what].tried}, ${name} ${detected} of ${tried}`,
    );
    context.row(
      rowOf(
        { bench: "corruption", case: `${label}, against ${name}`, unit: "%" },
        [(100 * ours[what].detected) / ours[what].tried],
        [(100 * detected) / tried],
      ),
    );
  }
}

async function damageOurs(
  context: BenchContext,
  directory: string,
): Promise<{ readonly flips: Result; readonly cuts: Result }> {
  const state = exampleState(3, elements, workers);
  const files: Manifest["files"][number][] = [];
  for (let worker = 0; worker < workers; worker++) {
    const shard = shardFileOf(state, shardsOf(state, worker), { directory, step: 5, worker });
    files.push({ ...(await writeShardFile(shard)), worker });
  }
  const text = JSON.stringify(manifestOf(state, 5, files), null, 2);
  writeFileSync(join(directory, "manifest.json"), text);
  const sha256 = createHash("sha256").update(text).digest("hex");
  const load = async (): Promise<void> => {
    for (let worker = 0; worker < workers; worker++) {
      const shards = shardsOf(state, worker, "empty");
      await loadCheckpoint(directory, { ...state.expected, sha256 }, wantedOf(state, shards));
    }
  };
  await load();
  const paths = readdirSync(directory).map((name) => join(directory, name));
  const intact = new Map(paths.map((path) => [path, readFileSync(path)]));
  const detected = async (path: string, restore: Buffer): Promise<boolean> => {
    const isLoaded = await load().then(
      () => true,
      () => false,
    );
    writeFileSync(path, restore);
    if (isLoaded) context.say(`LOADED: a damaged ${path}`);
    return !isLoaded;
  };
  const result = {
    flips: await flipBits(intact, detected),
    cuts: await cut(intact, detected),
  };
  await load();
  for (const { tried, detected: found } of Object.values(result)) {
    if (found !== tried) throw new Error(`${tried - found} damaged checkpoints were loaded`);
  }
  return result;
}

type Files = ReadonlyMap<string, Buffer>;
type Detect = (path: string, restore: Buffer) => Promise<boolean>;

/** Bits of all files are equally likely. */
async function flipBits(files: Files, detected: Detect): Promise<Result> {
  const random = generator(1);
  const total = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  let found = 0;
  for (let i = 0; i < flips; i++) {
    let at = Math.floor(random() * total);
    for (const [path, good] of files) {
      if (at >= 0 && at < good.length) {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] as number) ^ (1 << Math.floor(random() * 8));
        writeFileSync(path, bad);
        found += Number(await detected(path, good));
      }
      at -= good.length;
    }
  }
  return { tried: flips, detected: found };
}

async function cut(files: Files, detected: Detect): Promise<Result> {
  let [tried, found] = [0, 0];
  for (const [path, good] of files) {
    for (let length = 0; length < good.length; length += cutBytes) {
      truncateSync(path, length);
      tried += 1;
      found += Number(await detected(path, good));
    }
  }
  return { tried, detected: found };
}

/** Numbers in [0, 1), the same ones in every run (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
