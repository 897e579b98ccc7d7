import { readdir, readFile, writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { RunService, type WorkerMessage, WorkerService } from "@paddock/proto";
import {
  createJoinToken,
  createQueue,
  grpcClient,
  hashJoinToken,
  joinTokenHeader,
  type Logger,
  type OpenRedis,
  openRedis,
} from "@paddock/service-kit";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { addJoinToken } from "../run-dir/join-tokens.js";
import { Cluster } from "../testing/cluster.js";
import { exampleSpec } from "../testing/example.js";
import { exampleHello } from "../testing/example-hello.js";
import { Cleanup } from "../testing/temporary.js";
import { plainText } from "./checked-message.js";

const atEnd = new Cleanup();
let redis: OpenRedis;
let cluster: Cluster;
beforeAll(async () => {
  redis = await openRedis({ dir: await atEnd.folder() });
  atEnd.add(() => redis.close());
});
beforeEach(() => {
  cluster = new Cluster(redis);
});
afterEach(() => cluster.close());
afterAll(() => atEnd.run());

const hourMs = 3_600_000;
const inAnHour = (): string => createJoinToken(Date.now() + hourMs);
const withToken = (token: string) => ({ connection: { headers: { [joinTokenHeader]: token } } });

/** A logger that keeps its warnings. */
function recorder() {
  const lines: Record<string, unknown>[] = [];
  const ignore = (): void => undefined;
  const warn = (fields: object, message: string): void => void lines.push({ ...fields, message });
  const logger = { info: ignore, error: ignore, debug: ignore, warn } as unknown as Logger;
  return { lines, logger };
}

const unauthenticated = (why: string) => ({
  code: "unauthenticated",
  message: expect.stringContaining(why),
});

test("where tokens are used, a worker without a valid one is refused and logged; with one the run finishes", async () => {
  const { lines, logger } = recorder();
  const runDir = await cluster.folder();
  const joinToken = inAnHour();
  const expired = createJoinToken(Date.now() - 1_000);
  await addJoinToken(runDir, expired, null);
  const spec = exampleSpec({ fleet: { workers: 1 } });
  const coordinator = await cluster.start({ runDir, spec, logger, security: { joinToken } });
  const { address } = coordinator;
  for (const [name, token, why] of [
    ["none", undefined, "it has no join token"],
    ["wrong", inAnHour(), "unknown here"],
    ["expired", expired, "expired at"],
    ["malformed", "password", "malformed"],
  ] as const) {
    const options = token === undefined ? {} : withToken(token);
    await expect(cluster.work(address, name, options).ended).rejects.toMatchObject(
      unauthenticated(why),
    );
    expect(lines.at(-1)).toMatchObject({ message: "refused", why: expect.stringContaining(why) });
  }
  await cluster.work(address, "right", withToken(joinToken)).ended;
  expect(await coordinator.done).toMatchObject({ kind: "finished" });

  // Only hashes are kept, and the one that was used is for this run from now on.
  const folder = join(runDir, "join-tokens");
  const file = join(folder, `${hashJoinToken(joinToken)}.json`);
  expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({ runId: coordinator.runId });
  for (const name of await readdir(folder)) {
    expect(await readFile(join(folder, name), "utf8")).not.toContain(joinToken.slice(-20));
  }
  expect(JSON.stringify(lines)).not.toContain("password");
});

test("a token of another run, one that was ended, and one that was revoked let nobody in", async () => {
  const runDir = await cluster.folder();
  const [other, ended, revoked] = [inAnHour(), inAnHour(), inAnHour()];
  const recordOf = (token: string) => join(runDir, "join-tokens", `${hashJoinToken(token)}.json`);
  await addJoinToken(runDir, other, "another-run");
  await addJoinToken(runDir, ended, null);
  await writeFile(recordOf(ended), JSON.stringify({ runId: null, expiresUnixMs: 1 }));
  const spec = exampleSpec({ fleet: { workers: 1 } });
  const { address } = await cluster.start({ runDir, spec });
  const refusal = (token: string) => cluster.work(address, "w", withToken(token)).ended;
  await expect(refusal(other)).rejects.toMatchObject(unauthenticated("for another run"));
  await expect(refusal(ended)).rejects.toMatchObject(unauthenticated("has been ended"));
  await expect(refusal(revoked)).rejects.toMatchObject(unauthenticated("unknown here"));
  await writeFile(recordOf(revoked), "nonsense");
  await expect(refusal(revoked)).rejects.toMatchObject({ code: "unauthenticated" });
  // Made while the coordinator runs: good at once.
  const late = inAnHour();
  await addJoinToken(runDir, late, null);
  await refusal(late);
});

test("an address that others reach needs TLS, or a token and somebody who asks for it", async () => {
  const spec = exampleSpec();
  const open = { spec, host: "0.0.0.0" };
  await expect(cluster.start(open)).rejects.toMatchObject({
    code: "permission-denied",
    message: expect.stringMatching(/the coordinator, received 0\.0\.0\.0.*--insecure-bind/),
  });
  await expect(cluster.start({ spec, metricsHost: "0.0.0.0" })).rejects.toMatchObject({
    code: "permission-denied",
    message: expect.stringContaining("metrics page"),
  });
  await expect(cluster.start({ ...open, security: { insecureBind: true } })).rejects.toMatchObject({
    code: "invalid-argument",
    message: expect.stringContaining("token"),
  });
  const { lines, logger } = recorder();
  const security = { insecureBind: true, joinToken: inAnHour() };
  const { address } = await cluster.start({ ...open, logger, security });
  expect(lines[0]).toMatchObject({
    host: "0.0.0.0",
    message: expect.stringContaining("without TLS"),
  });
  const port = address.split(":").at(-1);
  await expect(cluster.work(`127.0.0.1:${port}`, "w").ended).rejects.toMatchObject(
    unauthenticated("no join token"),
  );
});

test("without TLS nobody steers the run from another machine", async ({ skip }) => {
  const own = Object.values(networkInterfaces())
    .flat()
    .find((found) => found?.family === "IPv4" && !found.internal)?.address;
  if (own === undefined) skip("this machine has no address but loopback");
  const security = { insecureBind: true, joinToken: inAnHour() };
  const { address } = await cluster.start({ spec: exampleSpec(), host: "0.0.0.0", security });
  const port = address.split(":").at(-1);
  // A connection to that address comes from it.
  const client = grpcClient(`${own}:${port}`, RunService);
  cluster.closeAtEnd(client.close);
  await expect(client.cancel({ runId: "" })).rejects.toMatchObject({
    code: "permission-denied",
    message: expect.stringContaining("--tls-dir"),
  });
  expect(await cluster.administer(`127.0.0.1:${port}`).get({ runId: "" })).toBeDefined();
});

/** The error that ends a session in which these messages are sent. */
async function endOf(address: string, messages: readonly WorkerMessage[]): Promise<unknown> {
  const client = grpcClient(address, WorkerService);
  cluster.closeAtEnd(client.close);
  const outgoing = createQueue<WorkerMessage>(10);
  for (const message of messages) outgoing.push(message);
  try {
    for await (const _ of client.session(outgoing));
    return undefined;
  } catch (error) {
    return error;
  }
}

test("names that are none end a session, and reach neither the run directory nor the log as they are", async () => {
  const { lines, logger } = recorder();
  const runDir = await cluster.folder();
  const { address } = await cluster.start({ runDir, spec: exampleSpec(), logger });
  const before = await readdir(runDir, { recursive: true });
  const hello = { kind: "hello", hello: exampleHello } as const;
  const evil = "../../evil\u001b[2J";
  const written = {
    generation: 1,
    step: 5,
    file: evil,
    bytes: 1,
    worker: 0,
    sha256: "0".repeat(64),
    headBytes: 0,
    headSha256: "",
    ghash: "",
  };
  for (const messages of [
    [{ kind: "hello", hello: { ...exampleHello, workerName: evil } }],
    [hello, { kind: "checkpointWritten", checkpointWritten: written }],
    [hello, { kind: "progress", progress: { generation: 1, step: 1, phase: evil, waitingOn: [] } }],
  ] satisfies WorkerMessage[][]) {
    expect(await endOf(address, messages)).toMatchObject({ code: "invalid-argument" });
  }
  expect(lines.map(({ message }) => message)).toEqual(["refused", "refused", "refused"]);
  for (const { why } of lines) expect(plainText(String(why))).toBe(why);
  expect(await readdir(runDir, { recursive: true })).toEqual(before);
});

test("a submitted spec without measure is refused before it is parsed", async () => {
  const { address } = await cluster.start();
  const specJson = JSON.stringify({ ...exampleSpec(), name: "x".repeat(2 ** 20) });
  await expect(cluster.administer(address).submit({ specJson })).rejects.toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining("at most 1048576 characters"),
  });
});

test("a second session under a connected worker's name is refused and logged, and does not disturb the first", async () => {
  const { lines, logger } = recorder();
  const spec = exampleSpec({ fleet: { workers: 2 } });
  const coordinator = await cluster.start({ spec, logger });
  const first = cluster.work(coordinator.address, "w0");
  const api = cluster.administer(coordinator.address);
  for await (const run of api.watch({ runId: "" })) if (run.workers.length > 0) break;
  await expect(cluster.work(coordinator.address, "w0").ended).rejects.toMatchObject({
    code: "already-exists",
  });
  expect(lines.at(-1)).toMatchObject({ message: "refused", why: expect.stringContaining("w0") });
  cluster.work(coordinator.address, "w1");
  expect(await coordinator.done).toMatchObject({ kind: "finished" });
  await first.ended;
});
