/** The engine's collectives between real processes: what arrives, in what order it is added, and what happens when a peer fails. */
import { sumTree } from "@paddock/contract";
import { whyNoGroups } from "@paddock/engine";
import { referenceFlatMath as flat } from "@paddock/model";
import { afterEach, describe, expect, test } from "vitest";
import { type Member, type ProcessGroup, startGroup } from "../support/collective-group.js";
import { hashOf, leafOf, payloadOf, shardsOf } from "../support/collective-values.js";

const missing = whyNoGroups();

let group: ProcessGroup | undefined;
afterEach(async () => {
  await group?.close();
  group = undefined;
});

/** The tree sum of all logical ranks' leaves in one process. */
function sumOf(logicalRanks: number, elements: number, dtype: "fp32" | "fp16"): Float32Array {
  const round = (values: Float32Array): Float32Array => {
    if (dtype === "fp16") flat.roundHalf(values);
    return values;
  };
  return sumTree(
    { start: 0, end: logicalRanks },
    ({ start, end }) => (end - start === 1 ? round(leafOf(start, elements)) : undefined),
    (left, right) => {
      flat.add(left, right);
      return round(left);
    },
  );
}

describe.skipIf(missing)(`collectives ${missing ?? ""}`, () => {
  test.each([2, 3])(
    "%i processes: every rank receives what each other one sent it, of any size",
    async (size) => {
      group = await startGroup(size);
      const ranks = [...Array(size).keys()];
      // 128 KiB is the most that travels with its header.
      for (const bytes of [0, 1, 1001, 2 ** 16, 2 ** 17 + 1, 5 * 2 ** 20 + 3]) {
        // Sizes differ by pair, some are empty.
        const sizes = ranks.map((from) => ranks.map((to) => bytes * ((from + 2 * to) % 3)));
        const answers = await group.askAll({ do: "allToAll", key: "x", sizes });
        for (const to of ranks) {
          const expected = ranks.map((from) =>
            hashOf(payloadOf(from, to, sizes[from]?.[to] as number)),
          );
          expect(answers[to]).toEqual({ ok: expected });
        }
        const shares = ranks.map((rank) => bytes * rank);
        const gathered = ranks.map((rank) => hashOf(payloadOf(rank, 0, shares[rank] as number)));
        for (const answer of await group.askAll({ do: "allGather", sizes: shares })) {
          expect(answer).toEqual({ ok: gathered });
        }
      }
    },
  );

  test.each(["fp32", "fp16"] as const)(
    "%s: reduce-scatter and all-reduce are the fixed tree's sum, bit for bit, on 2 and 3 processes",
    async (dtype) => {
      for (const size of [2, 3]) {
        group = await startGroup(size);
        for (const [logicalRanks, elements] of [
          [3, 0],
          [3, 1],
          [5, 1001],
          [4, 300_000],
        ] as const) {
          const sum = sumOf(logicalRanks, elements, dtype);
          const command = { elements, logicalRanks, dtype };
          const shards = shardsOf(elements, size).map(({ start, end }) => ({
            ok: [hashOf(sum.slice(start, end))],
          }));
          expect(await group.askAll({ do: "reduceScatter", ...command })).toEqual(shards);
          const whole = { ok: [hashOf(sum)] };
          expect(await group.askAll({ do: "allReduce", ...command })).toEqual(
            shards.map(() => whole),
          );
        }
        await group.close();
      }
    },
  );

  test("sizes or keys that disagree are refused on both sides, with both sides' numbers", async () => {
    group = await startGroup(2);
    const of = (key: string, bytes: number) =>
      ({
        do: "allToAll",
        key,
        sizes: [
          [0, bytes],
          [bytes, 0],
        ],
      }) as const;
    for (const answer of await group.ask([of("x", 5), of("x", 7)])) {
      expect(answer).toMatchObject({ code: "exchange-corrupt" });
      expect(answer).toMatchObject({ message: expect.stringMatching(/5.*7|7.*5/) });
    }
    // The group is broken; a new one works.
    expect((await group.askAll(of("x", 5)))[0]).toMatchObject({ code: "exchange-corrupt" });
    await group.close();
    group = await startGroup(2);
    const answers = await group.ask([of("grad.1", 5), of("grad.2", 5)]);
    for (const answer of answers) {
      expect(answer).toMatchObject({ code: "exchange-corrupt" });
      expect(answer).toMatchObject({
        message: expect.stringMatching(/grad\.1.*grad\.2|grad\.2.*grad\.1/),
      });
    }
  });

  test.each([
    ["while the others wait for it", 10],
    ["within a large message", 100_000_000],
  ])("a peer that is killed %s is noticed long before the deadline", async (_, bytes) => {
    group = await startGroup(3, 250_000);
    const [survivor, other, victim] = group.members as [Member, Member, Member];
    const isLarge = bytes > 10;
    survivor.tell({ do: "wait", bytes, sayWhenBegun: isLarge });
    other.tell({ do: "wait", bytes });
    if (isLarge) victim.tell({ do: "wait", bytes });
    expect(await survivor.hear()).toEqual({ waiting: true });
    expect(await other.hear()).toEqual({ waiting: true });
    if (isLarge) expect(await survivor.hear()).toEqual({ begun: true });
    victim.process.kill("SIGKILL");
    for (const answer of await Promise.all([survivor.hear(), other.hear()])) {
      expect(answer).toMatchObject({ code: "worker-lost" });
    }
  });

  test("a peer that is stopped ends the wait at the deadline, and closing ends it at once", async () => {
    const waitOf = async (timeoutMs: number, closeAfterMs?: number) => {
      group = await startGroup(2, timeoutMs);
      const [waiting, stopped] = group.members as [Member, Member];
      stopped.process.kill("SIGSTOP");
      waiting.tell({ do: "wait", bytes: 10, closeAfterMs });
      expect(await waiting.hear()).toEqual({ waiting: true });
      const answer = await waiting.hear();
      await group.close();
      return answer;
    };
    expect(await waitOf(700)).toMatchObject({
      code: "exchange-timeout",
      message: expect.stringContaining("within 0.7 s"),
    });
    expect(await waitOf(250_000, 50)).toEqual({
      code: "stale-generation",
      message: "w: the test says so",
    });
  });
});
