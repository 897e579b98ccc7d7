/** A Redis of the test's own, on a free port, that keeps nothing. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { Redis } from "ioredis";

export interface TestRedis {
  readonly url: string;
  /** The process that runs now. */
  readonly process: ChildProcess;
  readonly client: Redis;
  /** Kills it and starts another on the same port, empty. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || !address) throw new Error("no port");
  return address.port;
}

export async function startTestRedis(directory: string): Promise<TestRedis> {
  const port = await freePort();
  const settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory];
  const start = (): ChildProcess =>
    spawn("redis-server", ["--port", String(port), ...settings], { stdio: "ignore" });
  let child = start();
  const end = async (): Promise<void> => {
    if (child.exitCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const url = `redis://127.0.0.1:${port}`;
  const client = new Redis(url, { maxRetriesPerRequest: null });
  client.on("error", () => undefined);
  await client.ping();
  return {
    url,
    get process() {
      return child;
    },
    client,
    async restart() {
      await end();
      child = start();
      await client.ping();
    },
    async stop() {
      client.disconnect();
      await end();
    },
  };
}
