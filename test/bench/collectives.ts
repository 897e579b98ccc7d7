/**
 * All-gather and reduce-scatter between two processes: ours over Gloo, against what two raw sockets carry on loopback, and
 * the same step of the Redis exchange beside it.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoGroups } from "@paddock/engine";
import { openRedis } from "@paddock/service-kit";
import { type Bench, type BenchContext, Unavailable } from "./harness/bench.js";
import { findPython } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, openOurs, openPeer, type Side } from "./harness/sides.js";

const sizes = [1_000_000, 8_000_000, 44_000_000] as const;
const ops = ["all-gather", "reduce-scatter"] as const;
const ways = ["collective", "socket", "redis"] as const;
type Way = (typeof ways)[number];

/** Repetitions of one measurement: short ones would measure the timer. */
const repeats: Readonly<Record<number, number>> = { 1000000: 10, 8000000: 4, 44000000: 1 };

export const collectivesBench: Bench = {
  name: "collectives",
  summary:
    "all-gather, reduce-scatter between two processes: GB/s each way, against raw sockets and the Redis exchange",
  async run(context) {
    const missing = whyNoGroups();
    if (missing !== undefined) throw new Unavailable(missing);
    const python = findPython(context.python, []);
    if (!python) throw new Unavailable("expected python3 for the sockets, found none");
    const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
    const redis = await openRedis({ dir: folder });
    const ours = [0, 1].map((rank) =>
      openOurs("collectives-side.js", [redis.url, String(rank)]),
    ) as [Side, Side];
    const sockets = [openPeer(python, "loopback.py"), openPeer(python, "loopback.py")] as const;
    const sides = [...ours, ...sockets];
    const both = (pair: readonly [Side, Side], ...commands: readonly object[]) =>
      Promise.all(pair.map((side, i) => side.ask((commands[i] ?? commands[0]) as object)));
    try {
      const { port } = await sockets[0].ask({ do: "listen" });
      await both(sockets, { do: "open" }, { do: "open", port });
      await both(ours, { do: "open" });
      for (const op of ops) {
        for (const bytes of sizes) {
          if (context.cases.length > 0 && !context.cases.includes(op)) continue;
          await report(context, `${op} ${bytes / 1e6} MB`, async (via) => {
            const pair = via === "socket" ? sockets : ours;
            const command = { do: "run", op, via, bytes, count: repeats[bytes] };
            const answers = await both(pair, command);
            return bytes / 1e6 / fastestMs(answers);
          });
        }
      }
    } finally {
      await Promise.all(sides.map((side) => side.close()));
      await redis.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

/** Of the ways that both processes tried, the fastest; a swap takes as long as the slower process says. */
function fastestMs(answers: readonly Answer[]): number {
  const names = Object.keys(answers[0] ?? {});
  return Math.min(...names.map((name) => Math.max(...answers.map((answer) => answer[name] ?? 0))));
}

/** Measures all ways in turn, the first to go rotating, and prints ours against each of the others. */
async function report(
  context: BenchContext,
  name: string,
  measure: (via: Way) => Promise<number>,
): Promise<void> {
  const results: Record<Way, number[]> = { collective: [], socket: [], redis: [] };
  for (let i = -2; i < context.pairs; i++) {
    for (let turn = 0; turn < ways.length; turn++) {
      const via = ways[(turn + i + ways.length) % ways.length] as Way;
      const value = await measure(via);
      if (i >= 0) results[via].push(value);
    }
  }
  const { collective, socket, redis } = results;
  const row = (peer: string) => ({ bench: "collectives", case: `${name}, ${peer}`, unit: "GB/s" });
  context.row(rowOf(row("against sockets"), collective, socket));
  context.row(rowOf(row("against Redis"), collective, redis));
}
