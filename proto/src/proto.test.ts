import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";
import { expect, test } from "vitest";
import { DecisionKind, type Prepared, type WorkerMessage } from "./index.js";
import { PeerService, RunService, WorkerService } from "./services.js";
import { protoFiles, protoRoot } from "./version.js";

const { requestSerialize: encode, requestDeserialize: decode } = WorkerService.session;

const prepared: Prepared = {
  generation: 3,
  step: 2 ** 53 - 1,
  finite: false,
  losses: [
    {
      rank: 1,
      total: -0,
      dinoLocal: 1 / 3,
      dinoGlobal: 5e-324,
      koleo: 0,
      ibot: Infinity,
      gram: 0.25,
    },
  ],
  monitors: [
    { rank: 1, teacherEntropy: 0.5, klToUniform: 1 / 3, featureStd: 0, effectiveRank: 7.25 },
  ],
  normRoots: [{ unit: "block.0", start: 0, end: 4, sum: 1e300 }],
  seconds: { data: 0.25, gather: 0 },
  exchangeBytes: 2 ** 40,
  peakGatheredBytes: 0,
  stateBytes: 16,
  images: 64,
  offenders: [{ order: 3, tensor: "sum koleo", rank: -1, samples: [1, 2 ** 40] }],
  eventLoopP99Ms: 3.5,
  badImages: 0,
  deviceAllocatedBytes: 2 ** 37,
  devicePeakBytes: 2 ** 38,
  deviceReservedBytes: 0,
};

/** The same protocol as another minor version declares it. */
function other(source: string): protobuf.Root {
  return protobuf.parse(`syntax = "proto3"; package paddock.v1; ${source}`).root;
}

test("the generated files are those that the .proto files give", () => {
  execFileSync(process.execPath, [join(protoRoot, "gen.mjs"), "--check"]);
});

test("every .proto file that reflection serves is there", () => {
  for (const file of protoFiles) expect(existsSync(join(protoRoot, file))).toBe(true);
});

test("a message comes back as a plain object, number for number", () => {
  const message: WorkerMessage = { kind: "prepared", prepared };
  const decoded = decode(encode(message));
  expect(decoded).toStrictEqual(message);
  expect(Object.is(decoded.kind === "prepared" && decoded.prepared.losses[0]?.total, -0)).toBe(
    true,
  );
});

test("absent fields are zero, empty or null, never undefined", () => {
  expect(RunService.scale.requestDeserialize(Buffer.alloc(0))).toStrictEqual({
    runId: "",
    workers: 0,
  });
  const hello = decode(Buffer.from([0x0a, 0]));
  expect(hello).toMatchObject({ kind: "hello", hello: { version: null, workerName: "" } });
});

test("negative 64-bit integers and enums survive", () => {
  const { responseSerialize, responseDeserialize } = WorkerService.session;
  const decision = {
    generation: 1,
    step: 2,
    kind: DecisionKind.DECISION_KIND_SKIP,
    gradNorm: { backbone: 1.5 },
    scale: 65536,
    goodSteps: 3,
    checkpoint: true,
    evaluate: false,
    stop: true,
  };
  expect(responseDeserialize(responseSerialize({ kind: "decision", decision }))).toStrictEqual({
    kind: "decision",
    decision,
  });
  const empty = RunService.get.responseDeserialize(Buffer.alloc(0));
  const run = { ...empty, checkpointStep: -1 };
  expect(RunService.get.responseDeserialize(RunService.get.responseSerialize(run))).toStrictEqual(
    run,
  );
});

test("bytes are handed on without a copy", () => {
  const chunk = { offset: 1024, data: Buffer.from([1, 2, 3]), crc32c: 0xffffffff };
  const bytes = PeerService.streamShard.responseSerialize(chunk);
  const decoded = PeerService.streamShard.responseDeserialize(bytes);
  expect(decoded).toEqual(chunk);
  expect(decoded.data.buffer).toBe(bytes.buffer);
});

test("fields that a newer minor version added are ignored", () => {
  const Newer = other(
    "message M { oneof kind { P progress = 2; } } message P { uint64 generation = 1; string mood = 90; bytes more = 91; }",
  ).lookupType("paddock.v1.M");
  const bytes = Newer.encode({
    progress: { generation: 4, mood: "fine", more: Buffer.alloc(9) },
  }).finish();
  expect(decode(Buffer.from(bytes))).toStrictEqual({
    kind: "progress",
    progress: { generation: 4, step: 0, phase: "", waitingOn: [] },
  });
});

test("a kind that a newer minor version added has no kind here", () => {
  const Newer = other("message M { oneof kind { P song = 99; } } message P { string a = 1; }");
  const bytes = Newer.lookupType("paddock.v1.M")
    .encode({ song: { a: "la" } })
    .finish();
  expect(decode(Buffer.from(bytes)).kind).toBeUndefined();
});

test("fields that an older minor version lacks take their defaults", () => {
  const Older = other(
    "message M { oneof kind { P progress = 2; } } message P { uint64 step = 2; }",
  );
  const bytes = Older.lookupType("paddock.v1.M")
    .encode({ progress: { step: 7 } })
    .finish();
  expect(decode(Buffer.from(bytes))).toMatchObject({ progress: { step: 7, generation: 0 } });
});

test("a 64-bit integer beyond 2^53 is refused, not rounded", () => {
  const bytes = Buffer.from([0x12, 11, 0x10, ...Array(9).fill(0xff), 0x01]); // Progress.step = 2^64 - 1
  expect(() => decode(bytes)).toThrow("expected at most 2^53 - 1");
});

test("bytes that are no message are an error", () => {
  expect(() => decode(Buffer.from([0x0a, 0x50, 1, 2]))).toThrow("index out of range");
});
