/**
 * One of the two processes of the bench `exchange`: moves bytes to the other over one of three ways.
 *   exchange  Paddock's, through BullMQ tickets and Redis values
 *   redis     a value and a token in a list: SET, RPUSH here, BLPOP, GET there
 *   tcp       a loopback socket
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { createRedisExchange } from "@paddock/worker";
import { Redis } from "ioredis";
import { type Command, serveCommands } from "./harness/sides.js";

/** One way to the other process; messages arrive in order. */
interface Way {
  send(payload: Uint8Array): Promise<void>;
  receive(bytes: number): Promise<void>;
  close(): Promise<void> | void;
}

const [redisUrl = "", runId = "", index = "0"] = process.argv.slice(2);
const me = Number(index);
const other = 1 - me;

async function exchangeWay(): Promise<Way> {
  const exchange = createRedisExchange({
    redisUrl,
    runId,
    maxInFlightBytes: 64 * 2 ** 20,
    timeoutMs: 60_000,
  });
  await exchange.enter(1, me, 2);
  let [sent, received] = [0, 0];
  const keyOf = (step: number) => ({ generation: 1, step, key: "bench" });
  return {
    send: (payload) => exchange.send(keyOf(sent++), other, payload),
    async receive(bytes) {
      const payload = await exchange.receive(keyOf(received++), other);
      expectBytes(bytes, payload.byteLength);
    },
    close: () => exchange.close(),
  };
}

function redisWay(): Way {
  const [writer, reader] = [new Redis(redisUrl), new Redis(redisUrl)];
  return {
    async send(payload) {
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      await writer.set(`bench:value:${me}`, bytes);
      await writer.rpush(`bench:token:${me}`, "1");
    },
    async receive(bytes) {
      await reader.blpop(`bench:token:${other}`, 60);
      const value = await reader.getBuffer(`bench:value:${other}`);
      expectBytes(bytes, value?.byteLength ?? 0);
    },
    close() {
      for (const client of [writer, reader]) client.disconnect();
    },
  };
}

function tcpWay(socket: Socket): Way {
  let [arrived, expected] = [0, 0];
  let wake = (): void => undefined;
  socket.setNoDelay(true);
  socket.on("data", (chunk) => {
    arrived += chunk.byteLength;
    if (arrived >= expected) wake();
  });
  return {
    async send(payload) {
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      await new Promise<void>((resolve) => {
        socket.write(bytes, () => resolve());
      });
    },
    async receive(bytes) {
      expected += bytes;
      while (arrived < expected) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    close: () => void socket.destroy(),
  };
}

function expectBytes(expected: number, received: number): void {
  if (expected !== received) {
    throw new RangeError(`expected ${expected} bytes, received ${received}`);
  }
}

const ways = new Map<string, Way>();
const wayOf = ({ via }: Command): Way => ways.get(String(via)) as Way;

/** A payload of that size, made once: fresh memory would cost more than sending it. */
const payloads = new Map<number, Uint8Array>();
function payloadOf(bytes: number): Uint8Array {
  const payload = payloads.get(bytes) ?? new Uint8Array(new SharedArrayBuffer(bytes)).fill(7);
  payloads.set(bytes, payload);
  return payload;
}

const server = createServer();

await serveCommands({
  async listen() {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { port: (server.address() as { port: number }).port };
  },
  /** Opens the ways; the process that listens is asked without a port. */
  async open({ port }) {
    const socket =
      port === undefined
        ? ((await once(server, "connection"))[0] as Socket)
        : connect(Number(port), "127.0.0.1");
    ways
      .set("tcp", tcpWay(socket))
      .set("redis", redisWay())
      .set("exchange", await exchangeWay());
    return {};
  },
  async send(command) {
    await wayOf(command).send(payloadOf(Number(command["bytes"])));
    return {};
  },
  async receive(command) {
    await wayOf(command).receive(Number(command["bytes"]));
    return {};
  },
  /** `count` round trips; the mean in ms. */
  async ping(command) {
    const [bytes, count] = [Number(command["bytes"]), Number(command["count"])];
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      await wayOf(command).send(payloadOf(bytes));
      await wayOf(command).receive(bytes);
    }
    return { ms: (performance.now() - start) / count };
  },
  async echo(command) {
    const [bytes, count] = [Number(command["bytes"]), Number(command["count"])];
    for (let i = 0; i < count; i++) {
      await wayOf(command).receive(bytes);
      await wayOf(command).send(payloadOf(bytes));
    }
    return {};
  },
});
server.close();
await Promise.all([...ways.values()].map((way) => way.close()));
