import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type LocalWorkers, startLocalWorkers, type WorkerExit } from "./local-workers.js";

let dir: string;
let workers: LocalWorkers | undefined;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-workers-"));
});
afterEach(async () => {
  workers?.kill();
  await workers?.end(0);
  await rm(dir, { recursive: true, force: true });
});

/** Starts workers that run a script; resolves with what happened when none is left. */
async function untilExtinct(script: string, slots = 1): Promise<WorkerExit[]> {
  const exits: WorkerExit[] = [];
  await new Promise<void>((resolve) => {
    void startLocalWorkers({
      slots,
      dir,
      command: (slot, start) => ({
        program: process.execPath,
        args: ["-e", script, String(slot), String(start)],
        env: {},
      }),
      onExit: (exit) => exits.push(exit),
      onExtinct: () => resolve(),
    }).then((started) => {
      workers = started;
    });
  });
  return exits;
}

test("a worker that dies is started again three times, and each death is told with its last words", async () => {
  const exits = await untilExtinct(
    `console.log(JSON.stringify({ level: 50, msg: "start " + process.argv[2], err: { message: "boom" } })); process.exit(4)`,
  );
  expect(exits.map(({ end, restarts }) => [end, restarts])).toEqual([
    [4, true],
    [4, true],
    [4, true],
    [4, false],
  ]);
  expect(exits.at(-1)?.tail).toBe("start 0: boom\nstart 1: boom\nstart 2: boom\nstart 3: boom");
});

test("wrong use and a broken environment are not tried again", async () => {
  const exits = await untilExtinct("console.error('no libtorch'); process.exit(3)");
  expect(exits).toMatchObject([{ slot: 0, end: 3, restarts: false, tail: "no libtorch" }]);
});

test("a program that cannot be started is a death like others", async () => {
  const exits: WorkerExit[] = [];
  await new Promise<void>((resolve) => {
    void startLocalWorkers({
      slots: 1,
      dir,
      command: () => ({ program: join(dir, "nothing"), args: [], env: {} }),
      onExit: (exit) => exits.push(exit),
      onExtinct: () => resolve(),
    });
  });
  expect(exits).toHaveLength(4);
  expect(exits[0]?.end).toContain("ENOENT");
});

test("at the end workers may leave by themselves; those that stay are killed, and none comes back", async () => {
  const exits: WorkerExit[] = [];
  const started = await startLocalWorkers({
    slots: 2,
    dir,
    command: (slot) => ({
      program: process.execPath,
      args: ["-e", slot === 0 ? "setTimeout(() => {}, 50)" : "setInterval(() => {}, 1000)"],
      env: {},
    }),
    onExit: (exit) => exits.push(exit),
    onExtinct: (exit) => exits.push(exit),
  });
  expect(started.pids()).toHaveLength(2);
  await started.end(300);
  expect(started.pids()).toHaveLength(0);
  expect(exits).toEqual([]);
});
