/**
 * One process of a group, for tests: `collective-side.js <rank> <size> <timeoutMs>`. Says over IPC at what addresses it
 * listens, connects to those it is sent, then answers commands until it is disconnected.
 */
import { sumTree } from "@paddock/contract";
import { allReduce, openGroup, reduceScatter } from "@paddock/engine";
import { referenceFlatMath as flat } from "@paddock/model";
import { hashOf, leafOf, payloadOf, shardsOf } from "./collective-values.js";
import { rootsOf, treeReduction } from "./sum-order.js";

export type SideCommand =
  | {
      readonly do: "allToAll";
      readonly key: string;
      readonly sizes: readonly (readonly number[])[];
    }
  | { readonly do: "allGather"; readonly sizes: readonly number[] }
  | (ReduceCommand & { readonly do: "reduceScatter" | "allReduce" })
  | {
      readonly do: "wait";
      readonly bytes: number;
      readonly closeAfterMs?: number | undefined;
      /** Says so when the first byte of the last rank's message has come. */
      readonly sayWhenBegun?: boolean;
    };

interface ReduceCommand {
  readonly elements: number;
  readonly logicalRanks: number;
  readonly dtype: "fp32" | "fp16";
}

/** `ok` holds hashes of what came, by rank, or of a sum. */
export type SideAnswer =
  | { readonly ok: readonly string[] }
  | { readonly code: string; readonly message: string };

const [rank, size, timeoutMs] = process.argv.slice(2).map(Number) as [number, number, number];
const say = (message: object): void => {
  process.send?.(message);
};

const group = openGroup({ rank, size, host: "127.0.0.1", timeoutMs, connectMs: timeoutMs });
const receive = <T>(): Promise<T> =>
  new Promise((resolve) => process.once("message", (message) => resolve(message as T)));
const ranks = Array.from({ length: size }, (_, r) => r);

const vectorsOf = ({ elements, logicalRanks, dtype }: ReduceCommand): Float32Array[] =>
  rootsOf(logicalRanks, rank, size).map((root) =>
    sumTree(
      root,
      (node) => {
        if (node.end - node.start > 1) return undefined;
        const leaf = leafOf(node.start, elements);
        if (dtype === "fp16") flat.roundHalf(leaf);
        return leaf;
      },
      (left, right) => {
        flat.add(left, right);
        if (dtype === "fp16") flat.roundHalf(left);
        return left;
      },
    ),
  );

const run = async (command: SideCommand): Promise<string[]> => {
  switch (command.do) {
    case "allToAll": {
      const { key, sizes } = command;
      const outgoing = ranks.map((to) => payloadOf(rank, to, sizes[rank]?.[to] ?? 0));
      const incoming = ranks.map((from) => new Uint8Array(sizes[from]?.[rank] ?? 0));
      await group.allToAll(key, outgoing, incoming);
      return incoming.map(hashOf);
    }
    case "allGather": {
      const incoming = command.sizes.map((bytes) => new Uint8Array(bytes));
      await group.allGather("g", payloadOf(rank, 0, command.sizes[rank] ?? 0), incoming);
      return incoming.map(hashOf);
    }
    case "reduceScatter": {
      const { dtype, elements, logicalRanks } = command;
      const reduction = { ...treeReduction(logicalRanks, size), dtype, flat };
      const owned = shardsOf(elements, size);
      const sum = await reduceScatter(group, "r", vectorsOf(command), { ...reduction, owned });
      return [hashOf(sum)];
    }
    case "allReduce": {
      const { dtype, elements: length, logicalRanks } = command;
      const reduction = { ...treeReduction(logicalRanks, size), dtype, flat };
      return [hashOf(await allReduce(group, "s", vectorsOf(command), { ...reduction, length }))];
    }
    case "wait": {
      const { bytes, closeAfterMs, sayWhenBegun } = command;
      if (closeAfterMs !== undefined)
        setTimeout(() => group.close("the test says so"), closeAfterMs);
      const payload = new Uint8Array(new SharedArrayBuffer(bytes)).fill(1);
      const incoming = ranks.map((from) => (from === rank ? payload : new Uint8Array(bytes)));
      const outgoing = ranks.map(() => payload);
      const done = group.allToAll("w", outgoing, incoming);
      // Reported where it is awaited.
      done.catch(() => undefined);
      say({ waiting: true });
      if (sayWhenBegun) {
        const last = incoming.at(-1) as Uint8Array;
        while (last[0] === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        say({ begun: true });
      }
      await done;
      return [];
    }
  }
};

say(((await group.listen()) as Uint8Array[]).map((address) => [...address]));
await group.connect((await receive<number[][]>()).map((address) => Uint8Array.from(address)));
say({ connected: true });
process.on("message", async (command: SideCommand) => {
  try {
    say({ ok: await run(command) } satisfies SideAnswer);
  } catch (thrown) {
    const { code = "none", message } = thrown as Error & { code?: string };
    say({ code, message } satisfies SideAnswer);
  }
});
process.on("disconnect", () => group.close("the test is over"));
