import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { PeerService, type Run, RunService, WorkerService } from "@paddock/proto";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createQueue } from "../queue.js";
import type { Role } from "../security/identity.js";
import type { ConnectionLimits } from "../security/listener.js";
import type { Refusal } from "../security/refusals.js";
import { type TestFleet, testFleet } from "../security/testing.js";
import { type GrpcClientOptions, grpcClient } from "./client.js";
import { type CallContext, type Handlers, serve } from "./handlers.js";
import { type GrpcServer, startGrpcServer } from "./server.js";

let fleet: TestFleet;
let foreign: TestFleet;
beforeAll(async () => {
  [fleet, foreign] = await Promise.all([testFleet(), testFleet()]);
});
afterAll(() => {
  fleet.remove();
  foreign.remove();
});

const closers: (() => unknown)[] = [];
let refusals: Refusal[] = [];
let seen: CallContext[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  refusals = [];
  seen = [];
});

/** Every method of the services answers the same and notes its caller. */
function handlers(): Handlers<typeof RunService> {
  const answer = async (_: unknown, context: CallContext): Promise<Run> => {
    seen.push(context);
    return RunService.get.responseDeserialize(Buffer.alloc(0));
  };
  return {
    ...{ submit: answer, get: answer, pause: answer, resume: answer, scale: answer },
    ...{ cancel: answer, checkpointNow: answer },
    list: async () => ({ runs: [] }),
    watch: async function* (request, context) {
      yield await answer(request, context);
    },
  };
}

async function start(role: Role | undefined, limits?: Partial<ConnectionLimits>) {
  const lines = refusals;
  const server = await startGrpcServer({
    ...{ host: "127.0.0.1", port: 0 },
    ...(limits ? { limits } : {}),
    tls: role && { dir: fleet.dir, role },
    logger: { warn: (fields) => void lines.push(fields as Refusal) },
    services: [
      serve(RunService, handlers()),
      serve(WorkerService, {
        session: async function* (_, context) {
          seen.push(context);
          yield { kind: "drain", drain: { reason: "hello" } };
        },
      }),
      serve(PeerService, {
        streamShard: async function* (_, context) {
          seen.push(context);
          yield { offset: 0, data: Buffer.from("abcd"), crc32c: 1 };
        },
      }),
    ],
  });
  closers.push(() => server.close());
  return server;
}

function as(role: Role, from = fleet): GrpcClientOptions {
  return { tls: { dir: from.dir, role } };
}

async function get({ address }: GrpcServer, options: GrpcClientOptions): Promise<Run> {
  const client = grpcClient(address, RunService, options);
  closers.push(client.close);
  return client.get({ runId: "" }, { timeoutMs: 10_000 });
}

async function session({ address }: GrpcServer, options: GrpcClientOptions): Promise<unknown> {
  const client = grpcClient(address, WorkerService, options);
  closers.push(client.close);
  for await (const message of client.session(createQueue<never>(1))) return message;
  return undefined;
}

async function fetchOne({ address }: GrpcServer, options: GrpcClientOptions): Promise<unknown> {
  const client = grpcClient(address, PeerService, options);
  closers.push(client.close);
  const request = { generation: 1, kind: "m", unit: "u", start: 0, end: 1, step: 0 };
  for await (const chunk of client.streamShard(request)) return chunk;
  return undefined;
}

/** A caller that checks nothing of its own files first, as an attacker would not. */
async function bareGet(
  { address }: GrpcServer,
  files: { readonly key: string; readonly cert: string } | undefined,
): Promise<ServiceError | undefined> {
  const ca = readFileSync(join(fleet.dir, "ca.crt"));
  const [key, cert] = files ? [Buffer.from(files.key), Buffer.from(files.cert)] : [null, null];
  const accept = { checkServerIdentity: () => undefined };
  const client = new Client(address, credentials.createSsl(ca, key, cert, accept), {
    "grpc.ssl_target_name_override": "x",
  });
  closers.push(() => client.close());
  const { path, requestSerialize, responseDeserialize } = RunService.get;
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      ...([path, requestSerialize, responseDeserialize, { runId: "" }, new Metadata()] as const),
      { deadline: Date.now() + 10_000 },
      (error) => resolve(error ?? undefined),
    );
  });
}

test("each service answers its roles, knows who calls, and refuses all others with a log line", async () => {
  const coordinator = await start("coordinator");
  await get(coordinator, as("client"));
  expect(seen.at(-1)?.identity).toEqual({ role: "client", name: "client-1" });
  await get(coordinator, as("coordinator"));
  await session(coordinator, as("worker"));
  expect(seen.at(-1)?.identity).toEqual({ role: "worker", name: "worker-1" });
  expect(refusals).toEqual([]);
  expect(seen).toHaveLength(3);

  const denied = { code: "permission-denied", message: expect.stringContaining("role") };
  await expect(get(coordinator, as("worker"))).rejects.toMatchObject(denied);
  await expect(session(coordinator, as("client"))).rejects.toMatchObject(denied);
  await expect(session(coordinator, as("coordinator"))).rejects.toMatchObject(denied);
  const worker = await start("worker");
  const toWorker = { serverRole: "worker" } as const;
  await fetchOne(worker, { ...as("worker"), ...toWorker });
  await expect(fetchOne(worker, { ...as("client"), ...toWorker })).rejects.toMatchObject(denied);
  expect(seen).toHaveLength(4);
  expect(refusals.map(({ who, call }) => [who, call])).toEqual([
    ["worker worker-1", "/paddock.v1.RunService/Get"],
    ["client client-1", "/paddock.v1.WorkerService/Session"],
    ["coordinator coordinator-1", "/paddock.v1.WorkerService/Session"],
    ["client client-1", "/paddock.v1.PeerService/StreamShard"],
  ]);
  for (const { from } of refusals) expect(from).toMatch(/^127\.0\.0\.1:\d+$/);
});

test("a server of another role is refused before anything is sent to it", async () => {
  const impostor = await start("worker");
  await expect(session(impostor, as("worker"))).rejects.toMatchObject({
    code: "permission-denied",
    message: expect.stringContaining("expected a coordinator"),
  });
  expect(seen).toEqual([]);
});

test("without a certificate, with a foreign, an expired or a coming one there is no call, and the log says why", async () => {
  const server = await start("coordinator");
  const expired = await fleet.issue("client", { as: "old", validity: { from: -3, to: -2 } });
  const coming = await fleet.issue("client", { as: "new", validity: { from: 2, to: 3 } });
  const other = await foreign.issue("client");
  const unknownRole = await fleet.issue("root", { as: "root" });
  for (const files of [undefined, other, expired, coming, unknownRole]) {
    const { code } = (await bareGet(server, files)) ?? { code: 0 };
    expect(code).toBe(14);
  }
  expect(seen).toEqual([]);
  const reasons = refusals.map(({ who, why }) => `${who}: ${why}`);
  expect(reasons).toEqual([
    "unknown: it has no certificate",
    expect.stringMatching(
      /^client client-1 \(not verified\): its certificate is not of our authority/,
    ),
    expect.stringMatching(/^client client-1 .*: certificate: it expired on /),
    expect.stringMatching(/^client client-1 .*: certificate: it is not valid before /),
    expect.stringMatching(
      /^no role root-1 .*: expected a certificate of the role .* without a role$/,
    ),
  ]);
  for (const { from } of refusals) expect(from).toBe("127.0.0.1");
});

test("plain text to a server with TLS is refused with a hint, and the other way round", async () => {
  const secure = await start("coordinator");
  await expect(get(secure, { unreachable: "run-failed" })).rejects.toMatchObject({
    code: "run-failed",
    message: expect.stringContaining("--tls-dir"),
  });
  expect(refusals[0]).toMatchObject({ why: "it does not speak TLS", from: "127.0.0.1" });
  const plain = await start(undefined);
  await expect(get(plain, as("client"))).rejects.toMatchObject({
    code: "unauthenticated",
    message: expect.stringContaining("does not speak it"),
  });
});

test("a server of another authority is not trusted", async () => {
  const server = await start("coordinator");
  await expect(get(server, as("client", foreign))).rejects.toMatchObject({
    code: "unauthenticated",
    message: expect.stringContaining("ca.crt"),
  });
});

test("files that do not fit are an error of their owner, before anybody is called", async () => {
  const odd = await testFleet();
  closers.push(odd.remove);
  const read = () => grpcClient("127.0.0.1:1", RunService, as("client", odd));
  const message = (text: string) =>
    expect.objectContaining({ code: "unauthenticated", message: expect.stringContaining(text) });
  await odd.issue("worker", { as: "client" });
  expect(read).toThrow(message("expected the role client"));
  await odd.issue("client", { validity: { from: -3, to: -2 } });
  expect(read).toThrow(message("it expired on"));
  const { cert } = await foreign.issue("client");
  writeFileSync(join(odd.dir, "client.crt"), cert);
  expect(read).toThrow(message("authority in ca.crt"));
  await odd.issue("client");
  writeFileSync(join(odd.dir, "client.key"), (await odd.issue("client", { as: "x" })).key);
  expect(read).toThrow(message("the certificate's key"));
  writeFileSync(join(odd.dir, "client.crt"), "nonsense");
  expect(read).toThrow(message("paddock certs issue client"));
});

test("a renewed certificate is taken without a restart; one that does not fit is not", async () => {
  const own = await testFleet();
  closers.push(own.remove);
  const server = await startGrpcServer({
    ...{ host: "127.0.0.1", port: 0, tls: { dir: own.dir, role: "coordinator" } },
    services: [],
    logger: { warn: (fields) => void refusals.push(fields as Refusal) },
  });
  closers.push(() => server.close());
  const serial = () =>
    new Promise<string>((resolve, reject) => {
      const ca = readFileSync(join(own.dir, "ca.crt"));
      const cert = readFileSync(join(own.dir, "worker.crt"));
      const key = readFileSync(join(own.dir, "worker.key"));
      const port = server.port;
      const options = { host: "127.0.0.1", port, ca, cert, key, ALPNProtocols: ["h2"] };
      const socket = connectTls({ ...options, checkServerIdentity: () => undefined }, () => {
        resolve(socket.getPeerCertificate().serialNumber);
        socket.destroy();
      });
      socket.on("error", reject);
    });
  const first = await serial();
  await own.issue("coordinator");
  // Written within one tick of the clock of the file system, it would look unchanged.
  utimesSync(join(own.dir, "coordinator.crt"), 1, 1);
  const second = await serial();
  expect(second).not.toBe(first);
  writeFileSync(join(own.dir, "coordinator.key"), "half a key");
  expect(await serial()).toBe(second);
  const told = refusals.filter(({ who }) => who === "our own new certificate");
  expect(told).toMatchObject([{ why: expect.stringContaining("coordinator.key") }]);
});

test("without TLS the run is steered from this machine only, and sessions are the coordinator's to refuse", async () => {
  const server = await start(undefined);
  await get(server, {});
  expect(await session(server, {})).toMatchObject({ kind: "drain" });
  expect(seen.map(({ identity }) => identity)).toEqual([undefined, undefined]);
});

test("metadata without measure is refused", async () => {
  const server = await start(undefined);
  const headers = { a: "x".repeat(7_000), b: "x".repeat(7_000), c: "x".repeat(7_000) };
  await expect(get(server, { headers })).rejects.toMatchObject({
    code: "invalid-argument",
    message: expect.stringContaining("bytes of metadata"),
  });
  expect(seen).toEqual([]);
  await get(server, { headers: { a: headers.a } });
  expect(seen[0]?.header("a")).toBe(headers.a);
});

test("messages beyond the limit are refused", async () => {
  const { address } = await start(undefined);
  const client = grpcClient(address, RunService, { maxMessageBytes: 64 * 2 ** 20 });
  closers.push(client.close);
  const specJson = " ".repeat(5 * 2 ** 20);
  await expect(client.submit({ specJson })).rejects.toThrow(/larger than|max/i);
  expect(seen).toEqual([]);
});

test("one address has only so many connections, and all together too", async () => {
  const count = async (limits: Partial<ConnectionLimits>): Promise<number> => {
    const { port } = await start(undefined, limits);
    const sockets = Array.from({ length: 6 }, () => connectTcp(port, "127.0.0.1"));
    closers.push(() => sockets.forEach((socket) => void socket.destroy()));
    let cut = 0;
    const cutOff = new Promise<void>((resolve) => {
      for (const socket of sockets) {
        socket.on("error", () => undefined).on("close", () => ++cut === 2 && resolve());
      }
    });
    await cutOff;
    return sockets.filter(({ destroyed }) => !destroyed).length;
  };
  expect(await count({ perAddress: 4 })).toBe(4);
  expect(refusals.map(({ why }) => why)).toEqual(Array(2).fill("it has 4 connections open"));
  expect(await count({ total: 4 })).toBe(4);
  expect(refusals.map(({ why }) => why).slice(2)).toEqual(Array(2).fill("4 connections are open"));
});
