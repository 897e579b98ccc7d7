/** What becomes of a link whose Redis goes away at a bad moment. */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { PaddockError } from "@paddock/contract";
import { afterEach, expect, test } from "vitest";
import { RedisLink } from "./redis-link.js";

const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

const replies: Readonly<Record<string, string>> = {
  hello: "-ERR unknown command 'hello'\r\n",
  info: "$9\r\nloading:0\r\n",
  client: "+OK\r\n",
  subscribe: "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
};

/** Speaks as much of Redis as a subscription needs, and after `mute` no more than lets a client connect. */
async function fakeRedis() {
  const sockets = new Set<Socket>();
  const state = { subscriptions: 0, isMuted: false };
  const answer = (socket: Socket, command: string): void => {
    if (command === "subscribe") state.subscriptions += 1;
    if (command !== "subscribe" || !state.isMuted) socket.write(replies[command] ?? "");
  };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      const commands =
        data
          .toString()
          .toLowerCase()
          .match(/\b(hello|info|subscribe|client)\b/g) ?? [];
      for (const command of commands) answer(socket, command);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  open.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  return {
    url: `redis://127.0.0.1:${port}`,
    state,
    drop: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

test("a link subscribes again after a loss; closed meanwhile, it leaves no rejection to end the process", async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  open.push(() => process.off("unhandledRejection", note));
  const redis = await fakeRedis();
  const link = new RedisLink({ redisUrl: redis.url, timeoutMs: 5_000 });
  await link.subscribe(link.connect(), "c", "subscribing");
  await sleep(50);
  const before = redis.state.subscriptions;
  redis.state.isMuted = true;
  redis.drop();
  while (redis.state.subscriptions === before) await sleep(5);
  link.close(new PaddockError("stale-generation", "over"));
  await sleep(100);
  expect(unhandled).toEqual([]);
});
