import { Client, credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { PaddockError } from "@paddock/contract";
import { PeerService, type Run, RunPhase, RunService, WorkerService } from "@paddock/proto";
import { protoPath as healthProto } from "grpc-health-check";
import { afterEach, expect, test } from "vitest";
import { createQueue } from "../queue.js";
import { grpcClient } from "./client.js";
import { type Handlers, serve } from "./handlers.js";
import { type GrpcServer, startGrpcServer } from "./server.js";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function deferred<T>() {
  let resolve = (_value: T): void => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve: (value: T) => resolve(value) };
}

const run: Run = {
  runId: "r1",
  name: "run",
  phase: RunPhase.RUN_PHASE_RUNNING,
  generation: 2,
  step: 3,
  steps: 10,
  workers: [],
  lastStepJson: "",
  imagesPerSecond: 1.5,
  etaSeconds: -1,
  knnAccuracy: -1,
  checkpointStep: -1,
  waitingFor: "",
  reason: "",
  diagnosis: null,
  alert: "",
  incidents: [],
};

function runHandlers(overrides: Partial<Handlers<typeof RunService>>): Handlers<typeof RunService> {
  const plain = async () => run;
  return {
    submit: plain,
    get: plain,
    list: async () => ({ runs: [run] }),
    watch: async function* () {
      yield run;
    },
    pause: plain,
    resume: plain,
    scale: plain,
    cancel: plain,
    checkpointNow: plain,
    ...overrides,
  };
}

async function start(...services: ReturnType<typeof serve>[]): Promise<GrpcServer> {
  const server = await startGrpcServer({ host: "127.0.0.1", port: 0, services });
  closers.push(() => server.close());
  return server;
}

function connect<S extends { readonly [name: string]: unknown }>(address: string, service: S) {
  const client = grpcClient(address, service);
  closers.push(client.close);
  return client;
}

test("a unary call brings the whole message back", async () => {
  const { address } = await start(serve(RunService, runHandlers({})));
  expect(await connect(address, RunService).get({ runId: "r1" })).toEqual(run);
});

test("a PaddockError crosses with its code and message", async () => {
  const { address } = await start(
    serve(
      RunService,
      runHandlers({
        get: async ({ runId }) => {
          throw new PaddockError("not-found", `expected a run, received "${runId}"; see: list`);
        },
      }),
    ),
  );
  await expect(connect(address, RunService).get({ runId: "äx" })).rejects.toMatchObject({
    code: "not-found",
    message: 'expected a run, received "äx"; see: list',
  });
});

test("a message far beyond a header's size is cut, not lost", async () => {
  const submit = async () => {
    throw new PaddockError("invalid-spec", "x".repeat(100_000));
  };
  const { address } = await start(serve(RunService, runHandlers({ submit })));
  await expect(connect(address, RunService).submit({ specJson: "" })).rejects.toMatchObject({
    code: "invalid-spec",
  });
});

test("nobody at the address is the code the caller chose", async () => {
  const server = await start();
  await server.close();
  const client = grpcClient(server.address, RunService, { unreachable: "lease-lost" });
  closers.push(client.close);
  await expect(client.get({ runId: "" })).rejects.toMatchObject({
    code: "lease-lost",
    message: `expected an answer from ${server.address}, received: connect ECONNREFUSED ${server.address}; is it running, and is this its address?`,
  });
  await expect(client.ready(200)).rejects.toMatchObject({ code: "lease-lost" });
});

test("an abort cancels a call on both sides", async () => {
  const seen = deferred<unknown>();
  const controller = new AbortController();
  const { address } = await start(
    serve(
      RunService,
      runHandlers({
        get: (_request, { signal }) =>
          new Promise((_resolve, reject) => {
            setTimeout(() => controller.abort(new Error("enough")), 10);
            signal.addEventListener("abort", () => {
              seen.resolve(signal.reason);
              reject(signal.reason);
            });
          }),
      }),
    ),
  );
  const call = connect(address, RunService).get({ runId: "" }, { signal: controller.signal });
  await expect(call).rejects.toThrow("enough");
  expect(await seen.promise).toBeInstanceOf(Error);
});

test("a call past its deadline fails", async () => {
  const { address } = await start(
    serve(RunService, runHandlers({ get: () => new Promise(() => undefined) })),
  );
  await expect(
    connect(address, RunService).get({ runId: "" }, { timeoutMs: 50 }),
  ).rejects.toMatchObject({
    code: "worker-lost",
    message: expect.stringMatching(
      /^expected an answer from \S+, received none within 0\.0\d+ s; it is stopped, or it or this machine is overloaded$/,
    ),
  });
});

test("a bidirectional stream carries messages both ways until the client ends it", async () => {
  const { address } = await start(
    serve(WorkerService, {
      session: async function* (messages) {
        for await (const message of messages) {
          yield { kind: "drain", drain: { reason: `got ${message.kind}` } };
        }
      },
    }),
  );
  const outgoing = createQueue<Parameters<typeof WorkerService.session.requestSerialize>[0]>(4);
  const reasons: string[] = [];
  outgoing.push({ kind: "goodbye", goodbye: { reason: "a" } });
  for await (const message of connect(address, WorkerService).session(outgoing)) {
    if (message.kind === "drain") reasons.push(message.drain.reason);
    if (reasons.length < 3) {
      outgoing.push({
        kind: "progress",
        progress: { generation: 1, step: 2, phase: "data", waitingOn: [] },
      });
    } else outgoing.end();
  }
  expect(reasons).toEqual(["got goodbye", "got progress", "got progress"]);
});

test("a server that ends a stream with an error is heard, whatever the client still writes", async () => {
  const { address } = await start(
    serve(WorkerService, {
      // biome-ignore lint/correctness/useYield: the refusal comes before the first message
      session: async function* () {
        throw new PaddockError("version-mismatch", "expected 1.x, received 2.0");
      },
    }),
  );
  const outgoing = createQueue<never>(4);
  const read = async () => {
    for await (const _ of connect(address, WorkerService).session(outgoing)) break;
  };
  await expect(read()).rejects.toMatchObject({ code: "version-mismatch" });
});

test("a client that vanishes ends the server's iteration without an error and fires its signal", async () => {
  const ended = deferred<string>();
  const { address } = await start(
    serve(WorkerService, {
      session: async function* (messages, { signal }) {
        yield { kind: "drain", drain: { reason: "" } };
        for await (const _ of messages);
        if (signal.aborted) ended.resolve("aborted");
        else signal.addEventListener("abort", () => ended.resolve("aborted"));
      },
    }),
  );
  const outgoing = createQueue<never>(4);
  for await (const _ of connect(address, WorkerService).session(outgoing)) break;
  expect(await ended.promise).toBe("aborted");
});

test("a fast server waits for a slow reader", async () => {
  let produced = 0;
  const { address } = await start(
    serve(PeerService, {
      streamShard: async function* () {
        for (; produced < 100; produced++) {
          yield { offset: produced, data: Buffer.alloc(2 ** 20), crc32c: 7 };
        }
      },
    }),
  );
  const request = { generation: 1, kind: "m", unit: "embed", start: 0, end: 1, step: 0 };
  for await (const chunk of connect(address, PeerService).streamShard(request)) {
    expect(chunk.data.length).toBe(2 ** 20);
    await new Promise((resolve) => setTimeout(resolve, 100));
    break;
  }
  expect(produced).toBeLessThan(50);
});

test("a used port is an error that names the address and the remedy", async () => {
  const { port } = await start();
  await expect(startGrpcServer({ host: "127.0.0.1", port, services: [] })).rejects.toMatchObject({
    code: "port-in-use",
    message: expect.stringMatching(new RegExp(`127.0.0.1:${port}.*another port`)),
  });
});

test("an address of another machine is an invalid argument", async () => {
  await expect(startGrpcServer({ host: "192.0.2.1", port: 0, services: [] })).rejects.toMatchObject(
    { code: "invalid-argument" },
  );
});

test("health and reflection answer", async () => {
  const server = await start(serve(RunService, runHandlers({})));
  const health = loadPackageDefinition(loadSync(healthProto, { enums: String })) as unknown as {
    grpc: { health: { v1: { Health: typeof Client } } };
  };
  const client = new health.grpc.health.v1.Health(server.address, credentials.createInsecure());
  closers.push(() => client.close());
  const check = (service: string) =>
    new Promise((resolve, reject) => {
      const call = client as unknown as {
        check(request: object, done: (error: Error | null, reply: unknown) => void): void;
      };
      call.check({ service }, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  expect(await check("paddock.v1.RunService")).toEqual({ status: "SERVING" });
  server.setServing(false);
  expect(await check("")).toEqual({ status: "NOT_SERVING" });

  const reflection = new Client(server.address, credentials.createInsecure());
  closers.push(() => reflection.close());
  const answer = new Promise<Buffer>((resolve, reject) => {
    const call = reflection.makeBidiStreamRequest(
      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
    );
    call.on("data", resolve).on("error", reject);
    call.write(Buffer.from([0x3a, 0])); // list_services (field 7): ""
    call.end();
  });
  expect((await answer).toString("latin1")).toContain("paddock.v1.RunService");
});
