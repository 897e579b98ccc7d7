/** A Redis that can be killed, started again empty on the same port, and emptied. Keeps nothing on disk. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Redis } from "ioredis";
import { freePort } from "../support/redis.js";

export interface ChaosRedis {
  readonly url: string;
  readonly port: number;
  /** SIGKILL, and another one after `downMs`. */
  restart(downMs: number): Promise<void>;
  flush(): Promise<void>;
  /** Breaks the connections of all clients but ours. */
  cut(): Promise<void>;
  stop(): Promise<void>;
}

export async function startChaosRedis(folder: string): Promise<ChaosRedis> {
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  const launch = (): ChildProcess =>
    spawn(
      "redis-server",
      [
        ...["--port", String(port), "--bind", "127.0.0.1", "--dir", folder],
        ...["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
      ],
      { stdio: "ignore" },
    );
  let server = launch();
  const client = new Redis(url, { maxRetriesPerRequest: null });
  client.on("error", () => undefined);
  await client.ping();
  const kill = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    server.kill("SIGKILL");
    await once(server, "exit");
  };
  return {
    url,
    port,
    async restart(downMs) {
      await kill();
      await new Promise((resolve) => setTimeout(resolve, downMs));
      server = launch();
      await client.ping();
    },
    flush: async () => void (await client.flushall()),
    cut: async () => void (await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
    async stop() {
      client.disconnect();
      await kill();
    },
  };
}
