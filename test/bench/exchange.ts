/** Paddock's exchange through Redis between two processes, against plain SET/GET of the same bytes and against a loopback socket. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRedis } from "@paddock/service-kit";
import type { Bench, BenchContext } from "./harness/bench.js";
import { rowOf } from "./harness/rows.js";
import { openOurs, type Side } from "./harness/sides.js";

const ways = ["exchange", "redis", "tcp"] as const;
type Way = (typeof ways)[number];

const largeBytes = 20 * 2 ** 20;
const smallBytes = 16 * 2 ** 10;
/** Round trips of one measurement. */
const trips = 20;

export const exchangeBench: Bench = {
  name: "exchange",
  summary:
    "Redis exchange between two processes: GB/s and round trip, against SET/GET and a loopback socket",
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
    const redis = await openRedis({ dir: folder });
    const sides = [0, 1].map((index) =>
      openOurs("exchange-side.js", [redis.url, "bench", String(index)]),
    ) as [Side, Side];
    try {
      const { port } = await sides[0].ask({ do: "listen" });
      await Promise.all([sides[0].ask({ do: "open" }), sides[1].ask({ do: "open", port })]);
      await report(context, "20 MiB one way", "GB/s", async (via) => {
        const start = performance.now();
        await Promise.all([
          sides[0].ask({ do: "send", via, bytes: largeBytes }),
          sides[1].ask({ do: "receive", via, bytes: largeBytes }),
        ]);
        return largeBytes / 1e6 / (performance.now() - start);
      });
      await report(context, "16 KiB round trip", "ms", async (via) => {
        const command = { via, bytes: smallBytes, count: trips };
        const [answer] = await Promise.all([
          sides[0].ask({ do: "ping", ...command }),
          sides[1].ask({ do: "echo", ...command }),
        ]);
        return answer["ms"] ?? Number.NaN;
      });
    } finally {
      await Promise.all(sides.map((side) => side.close()));
      await redis.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

/** Measures all ways in turn and prints ours against each of the others. */
async function report(
  context: BenchContext,
  name: string,
  unit: string,
  measure: (via: Way) => Promise<number>,
): Promise<void> {
  const results: Record<Way, number[]> = { exchange: [], redis: [], tcp: [] };
  for (let i = -2; i < context.pairs; i++) {
    for (let turn = 0; turn < ways.length; turn++) {
      const via = ways[(turn + i + ways.length) % ways.length] as Way;
      const value = await measure(via);
      if (i >= 0) results[via].push(value);
    }
  }
  const { exchange, redis, tcp } = results;
  context.row(
    rowOf({ bench: "exchange", case: `${name}, against SET/GET`, unit }, exchange, redis),
  );
  context.row(rowOf({ bench: "exchange", case: `${name}, against a socket`, unit }, exchange, tcp));
}
