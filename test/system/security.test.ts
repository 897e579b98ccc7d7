/** A coordinator and workers as processes, with certificates and tokens: who may join, who may steer, what is said and logged. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { issueCertificate } from "@paddock/service-kit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  paddock,
  printed,
  readSteps,
  type Started,
  scratch,
  startPaddock,
  until,
  writeTinyRun,
} from "../support/paddock.js";
import { freePort } from "../support/redis.js";

const folder = scratch();
const at = (...names: string[]): string => join(folder.path, ...names);
const [tls, foreign] = [at("tls"), at("foreign")];
const started: Started[] = [];
beforeAll(async () => {
  for (const dir of [tls, foreign])
    expect((await paddock(["certs", "init", "--dir", dir])).code).toBe(0);
});
afterAll(async () => {
  for (const one of started) endGroup(one);
  await Promise.all(started.map(({ done }) => done));
  folder.remove();
});

/** The command and the worker that it started: they have a process group of their own. */
function endGroup({ process: { pid } }: Started): void {
  try {
    process.kill(-(pid as number), "SIGKILL");
  } catch {
    // It has ended.
  }
}

function begin(args: readonly string[]): Started {
  const one = startPaddock(args);
  started.push(one);
  return one;
}

interface Coordinator extends Started {
  readonly address: string;
  readonly metrics: string;
  /** Warnings of its log about callers. */
  readonly refusals: () => { readonly who: string; readonly from: string; readonly why: string }[];
}

async function coordinate(
  name: string,
  flags: readonly string[],
  workers = 1,
  steps = 6,
): Promise<Coordinator> {
  const runDir = at(name);
  const spec = writeTinyRun(folder.path, {
    steps,
    fleet: { workers },
    engine: { name: "wasm" },
  });
  const process = begin(["coordinator", spec, "--run-dir", runDir, ...flags]);
  const note = join(runDir, "coordinator.json");
  await until(
    "the coordinator to listen",
    60,
    () => existsSync(note) || process.process.exitCode !== null,
  );
  expect(process.process.exitCode, process.output()).toBe(null);
  const { address, metricsAddress } = JSON.parse(readFileSync(note, "utf8"));
  const refusals = () =>
    readFileSync(join(runDir, "logs", "coordinator.log"), "utf8")
      .split("\n")
      .filter((line) => line.includes('"msg":"refused"'))
      .map((line) => JSON.parse(line));
  return { ...process, address, metrics: metricsAddress, refusals };
}

/** So that a worker that is refused in a way that could pass ends at once. */
const atOnce = ["--reconnect-seconds", "0"];

const work = (address: string, name: string, flags: readonly string[] = []) =>
  begin([...["worker", "--coordinator", address, "--name", name, "--engine", "wasm"], ...flags]);

test("with TLS: no certificate, a foreign one, another role, an expired one and a taken name are refused and logged; then the run finishes", async () => {
  const coordinator = await coordinate("secure", ["--tls-dir", tls], 2);
  const { address, refusals } = coordinator;
  const refused = async (name: string, flags: readonly string[], said: RegExp): Promise<void> => {
    const { code, stderr } = await work(address, name, [...flags, ...atOnce]).done;
    expect(stderr).toMatch(said);
    expect(code).not.toBe(0);
  };
  // A client's certificate under a worker's file name: found by its owner; sent all the same, by the coordinator.
  const posing = at("posing");
  await paddock(["certs", "issue", "worker", "--dir", tls, "--out", posing]);
  for (const kind of ["crt", "key"]) {
    writeFileSync(join(posing, `worker.${kind}`), readFileSync(join(tls, `client.${kind}`)));
  }
  const old = at("old");
  await paddock(["certs", "issue", "worker", "--dir", tls, "--out", old]);
  const authority = {
    cert: readFileSync(join(tls, "ca.crt"), "utf8"),
    key: readFileSync(join(tls, "ca.key"), "utf8"),
  };
  const dates = { notBefore: new Date(Date.now() - 9e7), notAfter: new Date(Date.now() - 1e6) };
  const expired = await issueCertificate(authority, {
    role: "worker",
    name: "late",
    hosts: [],
    ...dates,
  });
  writeFileSync(join(old, "worker.crt"), expired.cert);
  writeFileSync(join(old, "worker.key"), expired.key);
  await Promise.all([
    refused("plain", [], /closed the connection; if it wants TLS, pass --tls-dir/),
    refused("stranger", ["--tls-dir", foreign], /valid certificate of the authority/),
    refused("posing", ["--tls-dir", posing], /expected the role worker/),
    refused("late", ["--tls-dir", old], /it expired on/),
  ]);
  expect((await paddock(["certs", "show", "--dir", old])).code).toBe(3);

  const good = ["--tls-dir", tls];
  const first = work(address, "w0", good);
  await until("w0 to join", 60, () => {
    const log = readFileSync(at("secure", "logs", "coordinator.log"), "utf8");
    return log.includes('"w0"');
  });
  await refused("w0", good, /expected a worker name that is not connected, received "w0"/);
  const status = await printed(["status", "--coordinator", address, ...good, "--json"]);
  expect(JSON.parse(status)).toMatchObject({ phase: "waiting" });
  const known = await printed(["status", at("secure"), "--json"]);
  expect(JSON.parse(known)).toMatchObject({ phase: "waiting" });
  const blind = await paddock(["status", "--coordinator", address]);
  expect(blind.stderr).toContain("--tls-dir");
  expect(blind.code).not.toBe(0);

  const second = work(address, "w1", good);
  const { code, stderr } = await coordinator.done;
  expect(code, stderr).toBe(0);
  expect((await Promise.all([first.done, second.done])).map((end) => end.code)).toEqual([0, 0]);
  expect(readSteps(at("secure"))).toHaveLength(6);
  const whys = refusals().map(({ who, from, why }) => `${who} ${from}: ${why}`);
  for (const expected of [
    /^unknown 127\.0\.0\.1: it does not speak TLS/,
    /^unknown 127\.0\.0\.1: it left during the TLS handshake/,
    /^worker worker 127\.0\.0\.1:\d+: expected a worker name that is not connected, received "w0"/,
  ]) {
    expect(whys).toContainEqual(expect.stringMatching(expected));
  }
});

test("certificates that only the server can refuse: of another role, expired, or none", async () => {
  const coordinator = await coordinate("doors", ["--tls-dir", tls]);
  const probe = at("probe.mjs");
  // A caller that does not check its own files, in plain TLS.
  writeFileSync(
    probe,
    `import { connect } from "node:tls"; import { readFileSync } from "node:fs";
     const [port, ca, cert, key] = process.argv.slice(2);
     const own = cert ? { cert: readFileSync(cert), key: readFileSync(key) } : {};
     const socket = connect({ host: "127.0.0.1", port: Number(port), ca: readFileSync(ca), ...own,
       ALPNProtocols: ["h2"], checkServerIdentity: () => undefined });
     socket.on("error", () => undefined).on("close", () => process.exit(7)).resume();`,
  );
  const port = coordinator.address.split(":").at(-1) as string;
  const cut = async (...files: string[]): Promise<void> => {
    const child: ChildProcess = spawn(process.execPath, [
      probe,
      port,
      join(tls, "ca.crt"),
      ...files,
    ]);
    expect(await once(child, "exit")).toEqual([7, null]);
  };
  await cut();
  await cut(at("old", "worker.crt"), at("old", "worker.key"));
  await cut(join(foreign, "worker.crt"), join(foreign, "worker.key"));
  expect(coordinator.refusals().map(({ who, why }) => `${who}: ${why}`)).toEqual([
    "unknown: it has no certificate",
    expect.stringMatching(/^worker late \(not verified\): certificate: it expired on /),
    expect.stringMatching(
      /^worker worker \(not verified\): its certificate is not of our authority/,
    ),
  ]);
  coordinator.process.kill("SIGTERM");
  await coordinator.done;
});

test("join tokens: none, a wrong and an expired one are refused; the right one, from a file, lets in", async () => {
  const [token, wrong, expired] = [at("right.token"), at("wrong.token"), at("old.token")];
  const create = async (file: string, expires: string): Promise<void> => {
    const made = await paddock(["token", "create", "--out", file, "--expires", expires]);
    expect(made.code, made.stderr).toBe(0);
  };
  await Promise.all([create(token, "1h"), create(wrong, "1h"), create(expired, "1s")]);
  const coordinator = await coordinate("tokens", ["--join-token-file", token]);
  const secret = readFileSync(token, "utf8").trim();
  expect(coordinator.output()).not.toContain(secret);
  const refused = async (name: string, file: string | null, said: RegExp): Promise<void> => {
    const flags = file === null ? [] : ["--join-token-file", file];
    const { code, stderr } = await work(coordinator.address, name, [...flags, ...atOnce]).done;
    expect(stderr).toMatch(said);
    expect(code).toBe(3);
    const whys = coordinator.refusals().map(({ why }) => why);
    expect(whys).toContainEqual(expect.stringMatching(said));
  };
  await Promise.all([
    refused("none", null, /it has no join token/),
    refused("wrong", wrong, /its join token is unknown here/),
    refused("late", expired, /its join token expired at/),
  ]);
  const late = await printed(["token", "create", "--run-dir", at("tokens"), "--expires", "1h"]);
  writeFileSync(at("late.token"), late);
  const worker = work(coordinator.address, "w0", ["--join-token-file", at("late.token")]);
  const { code, stderr } = await coordinator.done;
  expect(code, stderr).toBe(0);
  expect((await worker.done).code).toBe(0);
  const log = readFileSync(at("tokens", "logs", "coordinator.log"), "utf8");
  for (const shown of [secret, late.trim()]) expect(log).not.toContain(shown);
});

test("`train` with certificates runs its own workers with them", async () => {
  const spec = writeTinyRun(folder.path, { steps: 4, engine: { name: "wasm" } });
  const run = ["train", spec, "--run-dir", at("train"), "--workers", "2", "--tls-dir", tls];
  const { code, stderr } = await begin([...run, "exchange.kind=collective"]).done;
  expect(code, stderr).toBe(0);
  expect(readSteps(at("train"))).toHaveLength(4);
});

test("with TLS live state moves between workers, and the run is steered by who has a client's certificate", async () => {
  const good = ["--tls-dir", tls];
  const coordinator = await coordinate("live", good, 1, 100_000);
  const first = work(coordinator.address, "w0", good);
  await until("three steps", 60, () => readSteps(at("live")).length >= 3);
  const blind = await paddock(["scale", "2", "--coordinator", coordinator.address]);
  expect(blind.code, blind.stderr).not.toBe(0);
  const scaled = await paddock(["scale", "2", at("live")]);
  expect(scaled.code, scaled.stderr).toBe(0);
  const second = work(coordinator.address, "w1", good);
  const generations = () =>
    readFileSync(at("live", "ledger.jsonl"), "utf8")
      .split("\n")
      .filter((line) => line.includes('"kind":"generation"'));
  await until("a second generation", 60, () => generations().length >= 2);
  const begun = (JSON.parse(generations()[1] as string) as { step: number }).step;
  await until("its steps", 60, () => readSteps(at("live")).length >= begun + 5);
  const cancelled = await paddock(["cancel", "--coordinator", coordinator.address, ...good]);
  expect(cancelled.code, cancelled.stderr).toBe(0);
  expect((await coordinator.done).code).toBe(130);
  // They would look for a coordinator that may come back for the rest of the run.
  for (const one of [first, second]) endGroup(one);
  await Promise.all([first.done, second.done]);
  // Nothing was computed again: the state came from the other worker's memory.
  expect(generations()).toHaveLength(2);
  const steps = readSteps(at("live")).map(({ step }) => step);
  expect(steps).toEqual(steps.map((_, i) => i));
});

test("nothing listens where others reach it without TLS, unless asked for; the pages neither", async () => {
  const spec = writeTinyRun(folder.path, { steps: 2, engine: { name: "wasm" } });
  for (const flags of [
    ["--host", "0.0.0.0"],
    ["--metrics-host", "0.0.0.0"],
  ]) {
    const { code, stderr } = await begin(["coordinator", spec, "--run-dir", at("open"), ...flags])
      .done;
    expect(stderr).toMatch(/received 0\.0\.0\.0 without TLS; .*--insecure-bind/);
    expect(code).toBe(3);
    expect(existsSync(at("open"))).toBe(false);
  }
  const worker = await work("127.0.0.1:1", "w0", ["--host", "0.0.0.0"]).done;
  expect(worker.stderr).toMatch(/peer service, received 0\.0\.0\.0 without TLS/);
  expect(worker.code).toBe(3);

  const open = await coordinate("asked", [
    "--host",
    "0.0.0.0",
    "--metrics-host",
    "0.0.0.0",
    "--tls-dir",
    tls,
  ]);
  const port = open.metrics.split(":").at(-1);
  await expect(fetch(`http://127.0.0.1:${port}/metrics`)).rejects.toThrow();
  open.process.kill("SIGTERM");
  await open.done;
});

test("Redis with password and TLS: the run finishes, and nobody sees the password", async () => {
  const issued = await paddock(["certs", "issue", "redis", "--dir", tls, "--out", at("redis-tls")]);
  expect(issued.code).toBe(0);
  const port = await freePort();
  const password = "s3cret/with@signs";
  writeFileSync(
    at("redis.conf"),
    [
      "port 0",
      `tls-port ${port}`,
      "bind 127.0.0.1",
      `tls-cert-file ${at("redis-tls", "redis.crt")}`,
      `tls-key-file ${at("redis-tls", "redis.key")}`,
      `tls-ca-cert-file ${join(tls, "ca.crt")}`,
      "tls-auth-clients no",
      `requirepass ${password}`,
      'save ""',
      `dir ${folder.path}`,
      "",
    ].join("\n"),
  );
  const redis = spawn("redis-server", [at("redis.conf")], { stdio: "ignore" });
  try {
    const url = `rediss://:${encodeURIComponent(password)}@127.0.0.1:${port}`;
    writeFileSync(at("redis.url"), `${url}\n`);
    const spec = writeTinyRun(folder.path, { steps: 6, engine: { name: "wasm" } });
    const named = ["--redis-file", at("redis.url")];
    const distrusted = await begin(["train", spec, "--run-dir", at("no-ca"), ...named]).done;
    expect(distrusted.stderr).toMatch(
      /expected a Redis that answers at rediss:\/\/\*\*\*@127\.0\.0\.1/,
    );
    expect(distrusted.code).toBe(3);

    const trusted = [...named, "--redis-ca", join(tls, "ca.crt"), "--workers", "2"];
    const run = begin(["train", spec, "--run-dir", at("redis-run"), ...trusted]);
    await until(
      "a step",
      90,
      () => readSteps(at("redis-run")).length > 0 || run.process.exitCode !== null,
    );
    const processes = spawn("ps", ["-eo", "args"]);
    let list = "";
    processes.stdout.on("data", (data) => {
      list += String(data);
    });
    await once(processes, "close");
    const { code, stdout, stderr } = await run.done;
    expect(code, stderr).toBe(0);
    const logs = ["coordinator.log", "worker-0.log", "worker-1.log"].map((name) =>
      readFileSync(at("redis-run", "logs", name), "utf8"),
    );
    const seen = [list, stdout, stderr, distrusted.stderr, ...logs].join("\n");
    for (const text of [password, encodeURIComponent(password)]) expect(seen).not.toContain(text);
    expect(stdout).toContain(`rediss://***@127.0.0.1:${port}`);
  } finally {
    redis.kill("SIGKILL");
    await once(redis, "exit");
  }
});

test("a password among the arguments does not stay in the list of processes", async () => {
  const port = await freePort();
  const spec = writeTinyRun(folder.path, { steps: 2, engine: { name: "wasm" } });
  // A Redis that says nothing: the command waits for it, and can be looked at.
  const silent = (await import("node:net")).createServer(() => undefined).listen(port, "127.0.0.1");
  try {
    const url = `redis://:hunter2@127.0.0.1:${port}`;
    const run = begin(["train", spec, "--run-dir", at("silent"), "--redis", url]);
    const line = () => readFileSync(`/proc/${run.process.pid}/cmdline`, "latin1");
    await until("its arguments to be hidden", 20, () => line().includes("//***@"));
    expect(line()).not.toContain("hunter2");
    run.process.kill("SIGKILL");
    await run.done;
  } finally {
    silent.close();
  }
});
