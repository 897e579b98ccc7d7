// biome-ignore-all lint/style/noProcessEnv: a person chooses the device that a test run uses
/**
 * NCCL: loaded and asked without a GPU; used with PADDOCK_TEST_DEVICE=cuda, by one rank, as NCCL takes one rank per GPU.
 * PADDOCK_TEST_NCCL names a libnccl.so.2 where libtorch has brought none.
 */
import { env } from "node:process";
import { afterAll, describe, expect, test } from "vitest";
import { type Handle, loadNative, type Native, resultInts } from "../native.js";
import { skipReason } from "../testing/torch.js";
import { CollectiveError } from "./errors.js";
import { describeNccl, NcclGroup, ncclUniqueId } from "./nccl.js";

const load = loadNative();
const native = (load.kind === "loaded" ? load.native : undefined) as Native;

/** Undefined where there is an NCCL; else why not. */
function whyNoNccl(): string | undefined {
  if (skipReason !== undefined) return skipReason;
  try {
    describeNccl(env["PADDOCK_TEST_NCCL"] ?? "");
    return undefined;
  } catch (error) {
    return (error as CollectiveError).message;
  }
}

const missing = whyNoNccl();
const onCuda = env["PADDOCK_TEST_DEVICE"] === "cuda";

test.skipIf(skipReason !== undefined || missing === undefined)(
  "a machine without NCCL is told where it was looked for",
  () => {
    expect(missing).toMatch(/no NCCL found: .*libnccl\.so\.2/);
    expect(() => ncclUniqueId()).toThrow(CollectiveError);
  },
);

describe.skipIf(missing !== undefined)(`NCCL ${missing ?? ""}`, () => {
  test("its version is known, and ids differ", () => {
    expect(describeNccl().version).toMatch(/^2\.(1[89]|[2-9]\d)\.\d+$/);
    const [a, b] = [ncclUniqueId(), ncclUniqueId()];
    expect(a.some((byte) => byte !== 0)).toBe(true);
    expect(a).not.toEqual(b);
  });

  test.skipIf(onCuda)("a group needs the engine on a GPU", async () => {
    const opening = NcclGroup.open({ id: ncclUniqueId(), rank: 0, size: 1, timeoutMs: 1000 });
    await expect(opening).rejects.toThrow(/NCCL needs the engine on cuda, it is on cpu/);
  });
});

describe.skipIf(missing !== undefined || !onCuda)("NCCL on a GPU, one rank", () => {
  afterAll(() => native.setDevice("cpu"));

  const vector = (values: readonly number[]): Handle => {
    native.shared.set([values.length], resultInts);
    return native.fromArray(Float32Array.from(values), 0, 1);
  };
  const valuesOf = (handle: Handle): number[] => [...new Float32Array(native.read(handle, 0))];
  const open = async (): Promise<NcclGroup> => {
    native.setDevice("cuda");
    return await NcclGroup.open({ id: ncclUniqueId(), rank: 0, size: 1, timeoutMs: 60_000 });
  };

  test("what a rank sends itself arrives, gathers whole, and sums in order; no tensor is left", async () => {
    const group = await open();
    const before = native.numTensors();
    const [out, back] = [vector([1, 2, 3]), vector([0, 0, 0])];
    await group.allToAll("x", [out], [back]);
    expect(valuesOf(back)).toEqual([1, 2, 3]);
    const whole = await group.allGather("g", out, [3]);
    expect(valuesOf(whole)).toEqual([1, 2, 3]);
    // (1 + 2^24) + -2^24 loses the 1 in float32; in another order it would stay.
    const addends = [
      [1, 5],
      [2 ** 24, 6],
      [-(2 ** 24), 7],
    ].map(vector);
    const sum = await group.reduceScatter("r", addends, {
      contributions: [3],
      lengths: [2],
      order: [0, 1, "add", 2, "add"],
    });
    expect(valuesOf(sum)).toEqual([0, 18]);
    const all = await group.allReduce("s", [out, back], {
      contributions: [2],
      length: 3,
      order: [0, 1, "add"],
    });
    expect(valuesOf(all)).toEqual([2, 4, 6]);
    for (const handle of [out, back, whole, sum, all, ...addends]) native.free(handle);
    expect(native.numTensors()).toBe(before);
    group.close("the test is over");
  });

  test("a closed group refuses, and a peer that never joins ends the wait", async () => {
    const group = await open();
    group.close("generation 3 is over");
    const x = vector([1]);
    const stale = { code: "stale-generation", message: "generation 3 is over" };
    await expect(group.allToAll("x", [x], [x])).rejects.toMatchObject(stale);
    native.free(x);
    const alone = NcclGroup.open({ id: ncclUniqueId(), rank: 0, size: 2, timeoutMs: 2000 });
    await expect(alone).rejects.toMatchObject({ code: "exchange-timeout" });
  });
});
