import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { openRedis } from "./open-redis.js";
import { startServer } from "./redis-server.js";
import { tiedCommand } from "./tied-process.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock redis "));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function failure(work: Promise<unknown>): Promise<PaddockError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(PaddockError);
  return error as PaddockError;
}

/** The command line of a process; empty when it has ended. */
async function nameOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).replaceAll("\0", " ");
}

/** A server that answers every command of a Redis client in the same way. */
async function fakeRedis(reply: string): Promise<{ server: Server; url: string }> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      const commands = data.toString().match(/^\*\d+/gm)?.length ?? 0;
      socket.write(reply.repeat(commands));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return { server, url: `redis://127.0.0.1:${typeof address === "object" ? address?.port : 0}` };
}

test("a server from PATH answers with its password only, evicts nothing, saves nothing, and is gone after close", async () => {
  const redis = await openRedis({ dir });
  expect(redis.route).toBe("redis-server");
  expect(redis.description).not.toContain(new URL(redis.url).password);
  expect((await stat(join(dir, "redis.conf"))).mode & 0o777).toBe(0o600);

  const client = new Redis(redis.url);
  await client.set("key", "value");
  expect(await client.get("key")).toBe("value");
  expect(await client.config("GET", "maxmemory-policy")).toEqual([
    "maxmemory-policy",
    "noeviction",
  ]);
  expect(await client.config("GET", "save")).toEqual(["save", ""]);
  client.disconnect();

  const stranger = new Redis({ port: Number(new URL(redis.url).port), lazyConnect: true });
  stranger.on("error", () => undefined);
  await expect(stranger.get("key")).rejects.toThrow("NOAUTH");
  stranger.disconnect();

  await redis.close();
  await redis.close();
  const error = await failure(openRedis({ dir, url: redis.url }));
  expect(error.code).toBe("redis-unavailable");
  expect(error.message).toContain("ECONNREFUSED");
  expect(error.message).not.toContain(new URL(redis.url).password);
});

test("a given Redis is checked, used, and left running", async () => {
  const own = await openRedis({ dir });
  const given = await openRedis({ dir, url: own.url });
  expect(given).toMatchObject({ route: "given", url: own.url });
  await given.close();
  const again = await openRedis({ dir, url: own.url });
  await again.close();
  await own.close();
});

test("a wrong password, an old version, and something that is no URL are each one clear error", async () => {
  const own = await openRedis({ dir });
  const port = new URL(own.url).port;
  const refused = await failure(openRedis({ dir, url: `redis://:wrong@127.0.0.1:${port}` }));
  expect(refused.message).toMatch(/WRONGPASS.*check the address and the password/);
  await own.close();

  const info = "redis_version:6.0.16\r\n";
  const old = await fakeRedis(`$${info.length}\r\n${info}\r\n`);
  const tooOld = await failure(openRedis({ dir, url: old.url }));
  expect(tooOld.message).toContain("expected Redis 6.2 or newer");
  expect(tooOld.message).toContain("received 6.0.16");
  old.server.close();

  const noUrl = await failure(openRedis({ dir, url: "localhost:6379" }));
  expect(noUrl.message).toContain("expected a Redis URL such as");
  expect(noUrl.exitCode).toBe(3);
});

test("without a server on PATH and without Docker there is one error with the remedy", async () => {
  const error = await failure(openRedis({ dir, path: dir }));
  expect(error.code).toBe("redis-unavailable");
  expect(error.message).toContain("apt-get install redis-server");
  expect(error.message).toContain("--redis URL");
});

test("a server that cannot start reports the end of its log", async () => {
  await mkdir(join(dir, "redis.log"));
  const error = await failure(startServer({ program: "redis-server", dir }));
  expect(error.message).toContain("expected the Redis we started to answer");
  expect(error.message).toContain("pass --redis URL");
});

test("a server that is killed comes back at the same URL, and stays away after close", async () => {
  const ends: (number | string)[] = [];
  const onRestart = (end: number | string): void => void ends.push(end);
  const server = await startServer({ program: "redis-server", dir, onRestart });
  const first = server?.pid() ?? -1;
  process.kill(first, "SIGKILL");
  await vi.waitFor(() => expect(ends).toEqual(["SIGKILL"]), 5_000);
  await vi.waitFor(() => openRedis({ dir, url: server?.url }), 5_000);
  const second = server?.pid() ?? -1;
  expect(second).not.toBe(first);
  await server?.close();
  expect(await nameOf(second)).toBe("");
  expect(ends).toEqual(["SIGKILL"]);
});

test("a tied server ends when the process that started it is killed", async () => {
  const [command, args] = tiedCommand("redis-server", [
    ...["--port", "0", "--unixsocket", "redis.sock", "--save", ""],
  ]);
  const script = `
    const { spawn } = require("node:child_process");
    const options = { detached: true, stdio: ["pipe", "ignore", "ignore"] };
    const child = spawn(${JSON.stringify(command)}, ${JSON.stringify(args)}, options);
    process.stdout.write(String(child.pid));
    setInterval(() => undefined, 1000);
  `;
  const parent = spawn(process.execPath, ["-e", script], {
    cwd: dir,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const pid = Number(await new Promise<Buffer>((resolve) => parent.stdout.once("data", resolve)));
  await vi.waitFor(async () => expect(await nameOf(pid)).toContain("redis-server"), 5_000);
  parent.kill("SIGKILL");
  await vi.waitFor(async () => expect(await nameOf(pid)).toBe(""), 5_000);
});
