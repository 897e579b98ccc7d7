/**
 * One of the two processes of the bench `collectives`: exchanges equal amounts with the other, both ways at once.
 *   collective  the engine's, over Gloo
 *   redis       the exchange through Redis: what is gathered is published first, what is reduced is sent
 * A reduce-scatter includes the sum of the two addends.
 */
import { type FlatMath, type Group, openEngine, openGroup, reduceScatter } from "@paddock/engine";
import { referenceFlatMath } from "@paddock/model";
import { createRedisExchange } from "@paddock/worker";
import { Redis } from "ioredis";
import { type Command, serveCommands } from "./harness/sides.js";

const [redisUrl = "", rank = "0"] = process.argv.slice(2);
const me = Number(rank);
const other = 1 - me;
const timeoutMs = 60_000;

/** Swaps `bytes` with the other process once. */
type Swap = (bytes: number) => Promise<void>;

/** Memory of that size, made once: fresh memory would cost more than sending it. */
const arrays = new Map<string, Float32Array>();
function arrayOf(name: string, bytes: number): Float32Array {
  const key = `${name} ${bytes}`;
  const array = arrays.get(key) ?? new Float32Array(new SharedArrayBuffer(bytes)).fill(1);
  arrays.set(key, array);
  return array;
}

function bytesOf(array: Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Which half of a vector each process gets, and which of it I own. */
function halves(whole: Float32Array): readonly [Float32Array, Float32Array] {
  return [whole.subarray(0, whole.length / 2), whole.subarray(whole.length / 2)];
}

function overGloo(group: Group, flat: FlatMath): Record<string, Swap> {
  return {
    async "all-gather"(bytes) {
      const incoming = [bytesOf(arrayOf("in 0", bytes)), bytesOf(arrayOf("in 1", bytes))];
      await group.allGather("g", incoming[me] as Uint8Array, incoming);
    },
    async "reduce-scatter"(bytes) {
      const elements = bytes / 4;
      await reduceScatter(group, "r", [arrayOf("whole", 2 * bytes)], {
        contributions: [1, 1],
        order: [0, 1, "add"],
        owned: [
          { start: 0, end: elements },
          { start: elements, end: 2 * elements },
        ],
        out: arrayOf("sum", bytes),
        dtype: "fp32",
        flat,
      });
    },
  };
}

async function overRedis(flat: FlatMath): Promise<Record<string, Swap>> {
  const exchange = createRedisExchange({
    redisUrl,
    runId: "bench",
    maxInFlightBytes: 64 * 2 ** 20,
    timeoutMs,
  });
  await exchange.enter(1, me, 2);
  closing.push(() => exchange.close());
  let step = 0;
  const keyOf = (name: string) => ({ generation: 1, step: step++, key: name });
  return {
    async "all-gather"(bytes) {
      const key = keyOf("weights");
      const parts = new Map([["x", bytesOf(arrayOf("out", bytes))]]);
      await exchange.publish(key, parts, "everyone");
      await exchange.gather(key, "x", [bytes, bytes]);
      await exchange.retire(step - 2);
    },
    async "reduce-scatter"(bytes) {
      const parts = halves(arrayOf("whole", 2 * bytes));
      const outgoing = parts.map((part, to) => (to === me ? new Uint8Array(0) : bytesOf(part)));
      const received = await exchange.allToAll(keyOf("grad"), outgoing, [bytes, bytes]);
      const { buffer, byteOffset } = received[other] as Uint8Array;
      flat.add(parts[me] as Float32Array, new Float32Array(buffer, byteOffset, bytes / 4));
      await exchange.retire(step - 1);
    },
  };
}

const ways = new Map<string, Record<string, Swap>>();
const closing: (() => Promise<void> | void)[] = [];

await serveCommands({
  async open() {
    const engine = await openEngine({ name: "auto", threads: 1, device: "cpu" });
    const flat = engine.flat ?? referenceFlatMath;
    const group = openGroup({ rank: me, size: 2, host: "127.0.0.1", timeoutMs, connectMs: 10_000 });
    closing.push(() => group.close("the bench is over"));
    // The caller's rendezvous: a list in Redis for each direction.
    const redis = new Redis(redisUrl);
    const addresses = await group.listen();
    await redis.rpush(`bench:address:${me}`, Buffer.from(addresses[other] as Uint8Array));
    const [, theirs] = (await redis.blpopBuffer(`bench:address:${other}`, 10)) ?? [];
    redis.disconnect();
    const all = [new Uint8Array(0), new Uint8Array(0)];
    all[other] = new Uint8Array(theirs as Buffer);
    await group.connect(all);
    ways.set("collective", overGloo(group, flat)).set("redis", await overRedis(flat));
    return {};
  },
  /** `count` swaps; the mean in ms. */
  async run(command: Command) {
    const swap = ways.get(String(command["via"]))?.[String(command["op"])] as Swap;
    const [bytes, count] = [Number(command["bytes"]), Number(command["count"])];
    const start = performance.now();
    for (let i = 0; i < count; i++) await swap(bytes);
    return { ms: (performance.now() - start) / count };
  },
});
for (const close of closing) await close();
