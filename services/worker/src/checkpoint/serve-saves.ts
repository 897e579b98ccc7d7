/** The thread's side of `startSaver`: one save after the other. */
import { PaddockError } from "@paddock/contract";
import type { SaverPort, SaverReply, SaverRequest } from "./saver.js";
import { type ShardEntry, writeShardFile } from "./writer.js";

/** Grows to what the largest save needs, and is used again. */
let copy = new Float32Array(0);

/** Serves the saves that are asked for on `port`. */
export function serveSaves(port: SaverPort): void {
  let last = Promise.resolve();
  port.on("message", (request: SaverRequest) => {
    last = last.then(() => save(port, request));
  });
}

async function save(port: SaverPort, { id, shard }: SaverRequest): Promise<void> {
  const answer = (reply: SaverReply): void => port.postMessage(reply);
  try {
    const entries = copied(shard.entries);
    answer({ kind: "copied", id });
    answer({ kind: "written", id, file: await writeShardFile({ ...shard, entries }) });
  } catch (thrown) {
    const { code, message } = PaddockError.from(thrown);
    answer({ kind: "failed", id, code, message });
  }
}

function copied(entries: readonly ShardEntry[]): ShardEntry[] {
  const values = entries.reduce((sum, { data }) => sum + data.length, 0);
  if (copy.length < values) copy = new Float32Array(values);
  let at = 0;
  return entries.map((entry) => {
    const data = copy.subarray(at, at + entry.data.length);
    data.set(entry.data);
    at += data.length;
    return { ...entry, data };
  });
}
