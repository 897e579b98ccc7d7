/** A checkpoint in a generation: what waits for it, and what does not. */
import { PaddockError, parseRunSpec } from "@paddock/contract";
import { type Assignment, type Decision, DecisionKind, type WorkerMessage } from "@paddock/proto";
import { expect, test } from "vitest";
import type { Saving } from "../checkpoint/checkpoint-host.js";
import type { WrittenFile } from "../checkpoint/writer.js";
import { Generation, type GenerationDeps } from "./generation.js";

const spec = parseRunSpec({
  steps: 9,
  batchPerRank: 2,
  model: { width: 16, depth: 1, heads: 2, patchSize: 4, channels: 1 },
  heads: { dino: { prototypes: 24, bottleneck: 8, hidden: 16, layers: 2 } },
  data: { path: "x" },
  crops: {
    global: { size: 16, scale: [0.3, 1] },
    local: { size: 8, scale: [0.1, 0.3] },
    mean: [0],
    std: [1],
  },
});

const assignment = {
  generation: 3,
  worker: 0,
  workers: 1,
  startStep: 4,
  shadow: -1,
  rankCuts: [],
} as unknown as Assignment;

const commit = {
  generation: 3,
  step: 4,
  kind: DecisionKind.DECISION_KIND_COMMIT,
  gradNorm: null,
} as unknown as Decision;

interface Save {
  readonly copied: () => void;
  readonly written: (file: WrittenFile) => void;
  readonly failed: (error: Error) => void;
  readonly moved: () => void;
}

/** A generation whose engine and checkpoint thread only write down what they are asked. */
function open() {
  const done: string[] = [];
  const saves: Save[] = [];
  const engine = {
    async call(name: string) {
      done.push(name);
      return name === "centers" ? {} : undefined;
    },
  };
  const checkpoints = {
    save(_: unknown, onProgress: () => void): Saving {
      done.push("save");
      let copied = (): void => undefined;
      const isCopied = new Promise<void>((resolve) => {
        copied = resolve;
      });
      const written = new Promise<WrittenFile>((resolve, reject) => {
        saves.push({ copied, written: resolve, failed: reject, moved: onProgress });
      });
      return { copied: isCopied, written };
    },
  };
  const exchange = { close: async () => undefined };
  const told: WorkerMessage[] = [];
  const send = (message: WorkerMessage): void => {
    if (message.kind === "progress") done.push(`progress ${message.progress.phase}`);
    else told.push(message);
  };
  const logger = { error: () => undefined };
  const deps = { spec, checkpointRoot: "run", engine, exchange, checkpoints, logger, send };
  const generation = new Generation(assignment, deps as unknown as GenerationDeps);
  return { generation, done, saves, told };
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

test("an update waits until the state has been copied, but not for the file", async () => {
  const { generation, done, saves } = open();
  const saving = generation.checkpoint(4);
  await turns();
  const updated = generation.update(commit);
  await turns();
  expect(done).toEqual(["progress checkpoint", "centers", "syncState", "save"]);
  saves[0]?.copied();
  await updated;
  expect(done.at(-1)).toBe("update");
  await saving;
});

test("an update waits for all the saves that still copy", async () => {
  const { generation, done, saves } = open();
  void generation.checkpoint(4);
  void generation.checkpoint(4);
  await turns();
  const updated = generation.update(commit);
  saves[1]?.copied();
  await turns();
  expect(done).not.toContain("update");
  saves[0]?.copied();
  await updated;
  expect(done.at(-1)).toBe("update");
});

test("a generation comes to rest with its state copied; the file is told of later, with its own generation", async () => {
  const { generation, saves, told } = open();
  void generation.run(() => generation.checkpoint(4));
  await turns();
  let isAtRest = false;
  const rest = generation.interrupt(new Error("over")).then(() => {
    isAtRest = true;
  });
  await turns();
  expect(isAtRest).toBe(false);
  saves[0]?.copied();
  await rest;
  const head = { bytes: 8, sha256: "cd" };
  saves[0]?.written({ name: "f", bytes: 9, sha256: "ab", head });
  await turns();
  expect(told).toMatchObject([
    {
      kind: "checkpointWritten",
      checkpointWritten: { generation: 3, step: 4, file: "f", bytes: 9, headBytes: 8 },
    },
  ]);
});

test("a file that cannot be written is told of, and nothing else fails", async () => {
  const { generation, saves, told } = open();
  const saving = generation.checkpoint(4);
  await turns();
  saves[0]?.copied();
  await saving;
  saves[0]?.failed(new PaddockError("disk-unavailable", "no space"));
  await turns();
  const checkpointFailed = {
    generation: 3,
    step: 4,
    code: "disk-unavailable",
    message: "no space",
  };
  expect(told).toEqual([{ kind: "checkpointFailed", checkpointFailed }]);
});

test("a file that takes long shows that the worker is alive, where nothing else does", async () => {
  const { generation, done, saves } = open();
  const saving = generation.run(() => generation.checkpoint(4));
  await turns();
  saves[0]?.moved();
  expect(done.at(-1)).toBe("save");
  saves[0]?.copied();
  await saving;
  await turns();
  saves[0]?.moved();
  expect(done.at(-1)).toBe("progress checkpoint");
});
