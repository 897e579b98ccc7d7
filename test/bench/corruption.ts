/** Single flipped bits and cut files: who notices. Ours through the product's reader; PyTorch's DCP and plain safetensors beside it. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  layoutOf,
  PaddockError,
  parseRunSpec,
  type RunSpec,
  rngOf,
  statePartsOf,
} from "@paddock/contract";
import { loadCheckpoint, verifyCheckpoint } from "@paddock/worker";
import { paddock, scratch, tinySpec, writeTinyRun } from "../support/paddock.js";
import { type Bench, type BenchContext, Unavailable } from "./harness/bench.js";
import { runPeer } from "./harness/peer.js";
import { findPython } from "./harness/python.js";

const flips = 10_000;
const peerFlips = 400;
const cutBytes = 4096;

interface Tally {
  tried: number;
  detected: number;
  /** Loaded without a word, with other values or the same. */
  loaded: number;
}

export const corruptionBench: Bench = {
  name: "corruption",
  summary:
    "10,000 flipped bits and cuts at every 4 KiB of a checkpoint, beside DCP and safetensors",
  run: corruption,
};

async function corruption(context: BenchContext): Promise<void> {
  const folder = scratch();
  try {
    const { directory, spec, sha256 } = await checkpointIn(folder.path);
    const whole = await verifyCheckpoint(directory, spec, sha256);
    print(
      `intact: loads, state ${whole.stateHash.slice(0, 16)}, ${whole.bytes} bytes in 2 files and a manifest`,
    );
    const parts = statePartsOf(spec, layoutOf(spec)).filter(({ saved }) => saved);
    const wanted = parts.flatMap(({ kind, units }) =>
      units.map(({ name: unit, elements }) => {
        return { kind, unit, start: 0, target: new Float32Array(elements) };
      }),
    );
    const ways = {
      "`checkpoint verify` (SHA-256)": () => verifyCheckpoint(directory, spec, sha256),
      "a worker's load (GHASH)": () =>
        loadCheckpoint(directory, { parts, units: "own", sha256 }, wanted),
    };
    for (const [way, load] of Object.entries(ways)) {
      print(lineOf(`Paddock, ${way}, flipped bits`, await flipped(directory, load)));
      print(lineOf(`Paddock, ${way}, cut files`, await cut(directory, load)));
    }
    const after = await verifyCheckpoint(directory, spec, sha256);
    if (after.stateHash !== whole.stateHash) throw new Error("the bench itself damaged the files");
    await peers(context, folder.path);
  } finally {
    folder.remove();
  }
}

/** A real run's last checkpoint, written by two workers. */
async function checkpointIn(folder: string) {
  const runDir = join(folder, "run");
  const changes = { steps: 4, checkpoint: { everySteps: 2 } };
  const file = writeTinyRun(folder, changes);
  const { code, stderr } = await paddock(["train", file, "--run-dir", runDir, "--workers", "2"]);
  if (code !== 0) throw new Error(`no checkpoint: ${stderr}`);
  const directory = join(runDir, "checkpoints", "4");
  const sha256 = createHash("sha256")
    .update(readFileSync(join(directory, "manifest.json")))
    .digest("hex");
  const spec: RunSpec = parseRunSpec(tinySpec(join(folder, "images"), changes));
  return { directory, spec, sha256 };
}

async function flipped(directory: string, load: () => Promise<unknown>): Promise<Tally> {
  const files = filesIn(directory);
  const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const rng = rngOf(7);
  const tally = { tried: 0, detected: 0, loaded: 0 };
  for (let i = 0; i < flips; i++) {
    let bit = Math.floor(rng.uniform() * total * 8);
    const file = files.find(({ bytes }) => {
      if (bit < bytes.length * 8) return true;
      bit -= bytes.length * 8;
      return false;
    }) as (typeof files)[number];
    const damaged = Buffer.from(file.bytes);
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    writeFileSync(file.path, damaged);
    await judge(tally, load);
    writeFileSync(file.path, file.bytes);
  }
  return tally;
}

async function cut(directory: string, load: () => Promise<unknown>): Promise<Tally> {
  const tally = { tried: 0, detected: 0, loaded: 0 };
  for (const { path, bytes } of filesIn(directory)) {
    for (let at = 0; at < bytes.length; at += cutBytes) {
      truncateSync(path, at);
      await judge(tally, load);
      writeFileSync(path, bytes);
    }
  }
  return tally;
}

async function judge(tally: Tally, load: () => Promise<unknown>): Promise<void> {
  tally.tried++;
  try {
    await load();
    tally.loaded++;
  } catch (error) {
    // Anything else is a crash of the reader and not a verdict.
    const { code } = PaddockError.from(error);
    if (code !== "checkpoint-corrupt" && code !== "not-found") throw error;
    tally.detected++;
  }
}

function filesIn(directory: string) {
  return readdirSync(directory)
    .sort()
    .map((name) => {
      const path = join(directory, name);
      return { path, bytes: readFileSync(path) };
    });
}

async function peers(context: BenchContext, folder: string): Promise<void> {
  const python = findPython(context.python, ["torch", "safetensors", "numpy"]);
  if (!python) {
    throw new Unavailable(
      "expected a python with torch, safetensors and numpy for the peers, found none: .torch/bin/python -m pip install safetensors numpy, or --python",
    );
  }
  const work = join(folder, "peers");
  mkdirSync(work);
  const results = await runPeer<Record<string, Tally>>(python, "corruption.py", [
    work,
    String(peerFlips),
  ]);
  for (const [name, tally] of Object.entries(results))
    print(lineOf(`${name}, flipped bits`, tally));
}

function lineOf(name: string, { tried, detected, loaded }: Tally): string {
  return `${name.padEnd(28)} ${String(tried).padStart(6)} tried, ${String(detected).padStart(6)} detected, ${String(loaded).padStart(6)} loaded silently`;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
