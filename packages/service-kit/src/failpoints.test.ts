import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { type FailpointName, failpoints } from "./failpoint-names.js";
import { FailPlan, failpoint, failpointSync, parseFailpoints } from "./failpoints.js";

test("a text names points, actions, passes and arguments", () => {
  expect(
    parseFailpoints(
      "worker.prepared.sending=kill@3; coordinator.commit.appended=delay@5:400;*=log",
    ),
  ).toEqual([
    { name: "worker.prepared.sending", action: "kill", nth: 3, argument: "" },
    { name: "coordinator.commit.appended", action: "delay", nth: 5, argument: "400" },
    { name: "*", action: "log", nth: 1, argument: "" },
  ]);
  expect(parseFailpoints("worker.batch.ready=delay@*:40")).toEqual([
    { name: "worker.batch.ready", action: "delay", nth: 0, argument: "40" },
  ]);
  expect(parseFailpoints(" ;")).toEqual([]);
});

test.each([
  ["worker.prepared.sent=explode", 'received "explode"'],
  ["worker.no.such.point=kill", 'received "worker.no.such.point"'],
  ["*=kill", "an action that * has"],
  ["worker.batch.ready=duplicate", "an action that worker.batch.ready has"],
  ["worker.prepared.sending=full", "an action that worker.prepared.sending has"],
  ["worker.batch.ready=delay:soon", "a number behind the colon"],
  ["worker.batch.ready=error:oops", 'an error code, received "oops"'],
  ["worker.batch.ready", "a failpoint of failpoint-names.ts"],
])("%s is refused, with what was expected", (text, expected) => {
  expect(() => parseFailpoints(text)).toThrow(expected);
});

test("an arm acts once, at its pass, and a new text counts anew", () => {
  let text = "worker.batch.ready=kill@2";
  const plan = new FailPlan(() => text);
  const acts = (name: FailpointName) => plan.pass(name)?.action;
  expect([acts("worker.batch.ready"), acts("worker.step.done")]).toEqual([undefined, undefined]);
  expect([acts("worker.batch.ready"), acts("worker.batch.ready")]).toEqual(["kill", undefined]);
  text = "worker.batch.ready=delay@*:40";
  expect([acts("worker.batch.ready"), acts("worker.batch.ready")]).toEqual(["delay", "delay"]);
  text = "worker.batch.ready=freeze";
  expect([acts("worker.batch.ready"), acts("worker.batch.ready")]).toEqual(["freeze", undefined]);
});

test("without PADDOCK_FAILPOINTS a point does nothing and is not a promise", () => {
  expect(failpoint("worker.batch.ready")).toBeUndefined();
  expect(failpointSync("worker.batch.ready")).toBeUndefined();
});

test("every point has a role and says what happens there; there are at least 25", () => {
  const names = Object.keys(failpoints);
  expect(names.length).toBeGreaterThanOrEqual(25);
  for (const [name, { role }] of Object.entries(failpoints)) {
    expect(name.split(".")[0], name).toBe(role === "worker" ? name.split(".")[0] : "coordinator");
    expect(name).toMatch(/^[a-z]+(\.[a-z]+){1,2}$/);
  }
});

afterEach(() => {
  vi.unstubAllEnvs();
});

/** The module as a process has it that was started with these arms; killing and freezing are left to whole processes. */
async function armed(text: string) {
  vi.stubEnv("PADDOCK_FAILPOINTS", text);
  vi.resetModules();
  return await import("./failpoints.js");
}

test("an armed point fails, sends twice, flips a bit, fills the disk or waits, each once, and says so in the log", async () => {
  const folder = mkdtempSync(join(tmpdir(), "paddock-failpoints-"));
  const [arms, log] = [join(folder, "arms"), join(folder, "log")];
  vi.stubEnv("PADDOCK_FAILPOINTS_LOG", log);
  const armedPoints = await armed(`@${arms}`);
  await armedPoints.failpoint("worker.batch.ready"); // no file: nothing is armed

  writeFileSync(
    arms,
    [
      "worker.batch.ready=error@2:lease-lost",
      "worker.prepared.sending=duplicate",
      "exchange.payload.read=corrupt",
      "worker.checkpoint.half=full",
      "worker.step.done=delay:30",
      "worker.update.half=delay:1",
    ].join(";"),
  );
  await armedPoints.failpoint("worker.batch.ready");
  await expect(armedPoints.failpoint("worker.batch.ready")).rejects.toMatchObject({
    code: "lease-lost",
  });
  await armedPoints.failpoint("worker.batch.ready");
  const again = vi.fn();
  armedPoints.failpointSync("worker.prepared.sending", { again });
  armedPoints.failpointSync("worker.prepared.sending", { again });
  expect(again).toHaveBeenCalledTimes(1);
  const bytes = new Uint8Array([7, 7, 7]);
  await armedPoints.failpoint("exchange.payload.read", { bytes });
  expect([...bytes]).toEqual([7, 6, 7]);
  await expect(armedPoints.failpoint("worker.checkpoint.half")).rejects.toMatchObject({
    code: "ENOSPC",
  });
  await armedPoints.failpoint("worker.step.done");
  armedPoints.failpointSync("worker.update.half");
  const lines = readFileSync(log, "utf8").trim().split("\n");
  rmSync(folder, { recursive: true });
  expect(lines.map((line) => JSON.parse(line).action)).toEqual([
    "error",
    "duplicate",
    "corrupt",
    "full",
    "delay",
    "delay",
  ]);
});

test("a cut breaks the connections on its port, and no others", async () => {
  vi.stubEnv("PADDOCK_FAILPOINTS_LOG", "/dev/null");
  const [near, far] = [createServer(), createServer()];
  const ports: number[] = [];
  for (const server of [near, far]) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ports.push((server.address() as AddressInfo).port);
  }
  const { failpointSync: pass } = await armed(`worker.prepared.sent=cut:${ports[0]}`);
  const clients = ports.map((port) => connect(port, "127.0.0.1"));
  await Promise.all(clients.map((client) => once(client, "connect")));
  const closed = once(clients[0] as (typeof clients)[number], "close");
  pass("worker.prepared.sent");
  await closed;
  expect(clients.map(({ destroyed }) => destroyed)).toEqual([true, false]);
  for (const closing of [...clients, near, far]) {
    if ("destroy" in closing) closing.destroy();
    else closing.close();
  }
});

test("an unknown name in PADDOCK_FAILPOINTS is an error as soon as the process starts", async () => {
  await expect(armed("worker.nothing=kill")).rejects.toThrow('received "worker.nothing"');
});
