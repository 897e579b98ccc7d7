/**
 * One number for a run's whole state, whatever number of workers wrote it: SHA-256 over student, teacher, m, v and a frozen teacher unit by
 * unit, then the centres, the scaler and the data cursor. Reads the files by itself: it judges the product's reader too.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Manifest } from "@paddock/contract";

interface Piece {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

/** Lower-case hex. @param directory `checkpoints/<step>`, complete */
function stateHash(directory: string): string {
  const manifest = JSON.parse(readFileSync(join(directory, "manifest.json"), "utf8")) as Manifest;
  const pieces = new Map<string, Piece[]>();
  for (const { name } of manifest.files) readPieces(join(directory, name), pieces);
  const hash = createHash("sha256");
  for (const [name, parts] of [...pieces].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name}\n`);
    let at = 0;
    for (const { start, end, bytes } of parts.sort((a, b) => a.start - b.start || a.end - b.end)) {
      if (start !== at) throw new Error(`${directory}: ${name}: expected ${at}, received ${start}`);
      hash.update(bytes);
      at = end;
    }
  }
  const { step, scaler, cursor } = manifest;
  hash.update(JSON.stringify({ step, scale: scaler.scale, goodSteps: scaler.goodSteps, cursor }));
  return hash.digest("hex");
}

/** The state hash of a run's newest complete checkpoint, with its step. */
export function finalState(runDir: string): { readonly step: number; readonly hash: string } {
  const root = join(runDir, "checkpoints");
  const steps = readdirSync(root)
    .filter((name) => existsSync(join(root, name, "manifest.json")))
    .map(Number);
  const step = Math.max(...steps);
  return { step, hash: stateHash(join(root, String(step))) };
}

/** safetensors: header length, JSON header, data; shards say in the metadata which elements of their unit they hold. */
function readPieces(path: string, pieces: Map<string, Piece[]>): void {
  const file = readFileSync(path);
  const data = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, data)) as Record<string, never>;
  const { __metadata__: metadata, ...tensors } = header as unknown as {
    readonly __metadata__: { readonly ranges: string };
  } & Record<string, { readonly data_offsets: readonly [number, number] }>;
  const ranges = JSON.parse(metadata.ranges) as Record<string, { start: number; end: number }>;
  for (const [name, { data_offsets: offsets }] of Object.entries(tensors)) {
    const bytes = file.subarray(data + offsets[0], data + offsets[1]);
    const range = ranges[name] ?? { start: 0, end: bytes.length / 4 };
    pieces.set(name, [...(pieces.get(name) ?? []), { ...range, bytes }]);
  }
}
