import { X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { Registry } from "prom-client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHttpServer } from "../http-server.js";
import { hideSecret, redisTarget, withRedisCa } from "../redis/redis-url.js";
import { createAuthority, issueCertificate } from "./authority.js";
import { checkBind, isLoopback } from "./bind.js";
import { commonNameOf, roleOfNames } from "./identity.js";
import {
  createJoinToken,
  expiryOf,
  hashJoinToken,
  isSameHash,
  readJoinToken,
} from "./join-token.js";
import { type Refusal, refusalLog } from "./refusals.js";
import { type TestFleet, testFleet } from "./testing.js";

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await testFleet();
});
afterAll(() => fleet.remove());

test("an authority's certificates hold what they were issued for, and nothing more", async () => {
  const period = { notBefore: new Date(Date.now() - 1000), notAfter: new Date(Date.now() + 1e6) };
  const authority = await createAuthority({ name: "a", ...period });
  const hosts = ["gpu.lab", "10.0.0.5", "::1"];
  const worker = await issueCertificate(authority, {
    role: "worker",
    name: "gpu-1",
    hosts,
    ...period,
  });
  const client = await issueCertificate(authority, {
    role: "client",
    name: "me",
    hosts: [],
    ...period,
  });
  const [root, own, person] = [authority, worker, client].map(
    ({ cert }) => new X509Certificate(cert),
  );
  expect(root?.ca).toBe(true);
  expect(own?.ca).toBe(false);
  expect(own?.checkIssued(root as X509Certificate)).toBe(true);
  expect(own?.verify((root as X509Certificate).publicKey)).toBe(true);
  expect(own?.subjectAltName).toBe(
    "URI:paddock://role/worker, DNS:gpu.lab, IP Address:10.0.0.5, IP Address:0:0:0:0:0:0:0:1",
  );
  expect(own?.subject).toBe("CN=gpu-1");
  // A server and a client; a person is no server.
  expect(own?.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  expect(person?.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
  await expect(
    issueCertificate({ cert: "x", key: "y" }, { role: "worker", name: "w", hosts: [], ...period }),
  ).rejects.toMatchObject({ code: "invalid-argument" });
});

test("a role is exactly one known name of the certificate", () => {
  expect(roleOfNames("DNS:a, URI:paddock://role/worker, IP Address:1.2.3.4")).toBe("worker");
  expect(roleOfNames("URI:paddock://role/worker, URI:paddock://role/coordinator")).toBeUndefined();
  expect(roleOfNames("URI:paddock://role/admin")).toBeUndefined();
  expect(roleOfNames("DNS:paddock://role/worker")).toBeUndefined();
  // As Node prints a DNS name that tries to look like two names.
  expect(roleOfNames('DNS:"x, URI:paddock://role/worker"')).toBeUndefined();
  expect(roleOfNames(undefined)).toBeUndefined();
});

test("a common name is safe to log", () => {
  expect(commonNameOf("O=x\nCN=gpu-1")).toBe("gpu-1");
  expect(commonNameOf("CN=a\u001b[31mb")).toBe("a??31mb");
  expect(commonNameOf("O=x")).toBe("no name");
});

test.each([
  ["127.0.0.1", true],
  ["127.8.9.1", true],
  ["::1", true],
  ["[::1]", true],
  ["::ffff:127.0.0.1", true],
  ["localhost", true],
  ["0.0.0.0", false],
  ["::", false],
  ["10.0.0.1", false],
  ["::ffff:10.0.0.1", false],
  ["worker-0", false],
  ["localhost.example.org", false],
  ["127.0.0.1.example.org", false],
])("%s is this machine only: %s", (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

test("listening where others reach it needs TLS, or somebody who asks for it and is warned", () => {
  const open = { what: "x", host: "0.0.0.0", isEncrypted: false, isInsecureAllowed: false };
  expect(() => checkBind(open)).toThrow(expect.objectContaining({ code: "permission-denied" }));
  expect(checkBind({ ...open, isInsecureAllowed: true })).toContain("without TLS");
  expect(checkBind({ ...open, isEncrypted: true })).toBeUndefined();
  expect(checkBind({ ...open, host: "127.0.0.1" })).toBeUndefined();
});

test("join tokens say when they end, never repeat, and are not shown in errors", async () => {
  const token = createJoinToken(1_800_000_000_999);
  expect(expiryOf(token)).toBe(1_800_000_000_000);
  expect(createJoinToken(1_800_000_000_999)).not.toBe(token);
  expect(expiryOf(`${token}x`)).toBeUndefined();
  expect(expiryOf("")).toBeUndefined();
  expect(isSameHash(hashJoinToken(token), hashJoinToken(token))).toBe(true);
  expect(isSameHash(hashJoinToken(token), hashJoinToken(`${token} `))).toBe(false);
  expect(isSameHash("", "")).toBe(false);
  const file = join(fleet.dir, "token");
  writeFileSync(file, `${token}\n`);
  expect(await readJoinToken(file)).toBe(token);
  writeFileSync(file, "my-password");
  const error: Error = await readJoinToken(file).then(
    () => new Error("no error"),
    (thrown) => thrown,
  );
  expect(error).toMatchObject({ code: "unauthenticated" });
  expect(error.message).not.toContain("my-password");
});

test("refusals are logged up to a rate, and what was left out is counted", () => {
  const lines: (Refusal & { leftOut?: number })[] = [];
  let now = 0;
  const logger = { warn: (fields: object) => void lines.push(fields as Refusal) };
  const report = refusalLog(logger, () => now);
  for (let i = 0; i < 50; i++) report({ who: "w", from: "f", why: String(i) });
  expect(lines).toHaveLength(20);
  now = 10_000;
  report({ who: "w", from: "f", why: "later" });
  expect(lines.at(-1)).toEqual({ who: "w", from: "f", why: "later", leftOut: 30 });
});

test("no part of a Redis URL's secrets is shown", () => {
  const pem = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n";
  for (const url of [
    "redis://:secret@host:6379/0",
    "rediss://user:sec@ret/x@host:6379",
    "rediss://user:secret@host:6380?family=6",
  ]) {
    for (const shown of [hideSecret(url), hideSecret(withRedisCa(url, pem))]) {
      expect(shown).not.toMatch(/sec|ret|user|paddock-ca/);
      expect(shown).toMatch(/^rediss?:\/\/\*\*\*@host/);
    }
  }
  expect(hideSecret("redis://host:6379")).toBe("redis://host:6379");
  expect(redisTarget(withRedisCa("rediss://h?family=6", pem))).toEqual({
    url: "rediss://h?family=6",
    tls: { tls: { ca: Buffer.from(pem) } },
  });
  expect(redisTarget("redis://h")).toEqual({ url: "redis://h", tls: {} });
});

test("pages with TLS answer clients and the coordinator only", async () => {
  const refusals: Refusal[] = [];
  const server = await startHttpServer({
    ...{ port: 0, registry: new Registry(), status: () => ({ phase: "idle" }) },
    tls: { dir: fleet.dir, role: "coordinator" },
    logger: { warn: (fields) => void refusals.push(fields as Refusal) },
  });
  const ca = readFileSync(join(fleet.dir, "ca.crt"));
  const status = (role: string | undefined): Promise<string> =>
    new Promise((resolve, reject) => {
      const files = role
        ? {
            cert: readFileSync(join(fleet.dir, `${role}.crt`)),
            key: readFileSync(join(fleet.dir, `${role}.key`)),
          }
        : {};
      const url = `https://${server.address}/status`;
      const request = httpsRequest(url, { ca, ...files, agent: false }, (response) => {
        let body = "";
        response.on("data", (data) => {
          body += String(data);
        });
        response.on("end", () => resolve(body));
      });
      request.on("error", reject).end();
    });
  try {
    expect(await status("client")).toBe('{"phase":"idle"}\n');
    await expect(status("worker")).rejects.toThrow();
    await expect(status(undefined)).rejects.toThrow();
    expect(refusals.map(({ why }) => why)).toEqual([
      "expected a certificate of the role client or coordinator, received worker",
      "it has no certificate",
    ]);
  } finally {
    await server.close();
  }
});
