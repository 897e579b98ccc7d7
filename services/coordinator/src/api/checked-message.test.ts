import type { WorkerMessage } from "@paddock/proto";
import { expect, test } from "vitest";
import { exampleHello } from "../testing/example-hello.js";
import { checkedMessage, plainText } from "./checked-message.js";

const refused = expect.objectContaining({ code: "invalid-argument" });

test.each(["w0", "worker-0.3", "gpu_1.lab", "A"])("%s is a worker's name", (workerName) => {
  const message: WorkerMessage = { kind: "hello", hello: { ...exampleHello, workerName } };
  expect(checkedMessage(message)).toBe(message);
});

test.each([
  ["workerName", ["", "../x", "a/b", ".x", "-x", "a b", "a\nb", "a\u001b[2J", "ä", "x".repeat(65)]],
  ["host", ["a b", "a\u0000", "x".repeat(254)]],
  ["engine", ["a/b", "\u0007"]],
  ["device", ["a b", "x".repeat(65)]],
  ["peerAddress", ["host", "host:x", "http://a:1", "a b:1", "[::1]", "a:1:2"]],
] as const)("Hello.%s is refused when it has another form", (field, values) => {
  for (const value of values) {
    const hello = { ...exampleHello, [field]: value };
    expect(() => checkedMessage({ kind: "hello", hello }), JSON.stringify(value)).toThrow(refused);
  }
});

test.each(["127.0.0.1:7", "gpu-1.lab:70000", "[::1]:7070", ""])(
  "%s is an address",
  (peerAddress) => {
    const message: WorkerMessage = { kind: "hello", hello: { ...exampleHello, peerAddress } };
    expect(checkedMessage(message)).toBe(message);
  },
);

const sha256 = "0".repeat(64);
const head = { headBytes: 0, headSha256: "", ghash: "" };
const written = { generation: 1, step: 2, bytes: 3, worker: 0, sha256, ...head };

test("a checkpoint's file is a plain name in its folder", () => {
  const message = (file: string): WorkerMessage => ({
    kind: "checkpointWritten",
    checkpointWritten: { ...written, file },
  });
  expect(checkedMessage(message("shard-00000-of-00002.safetensors"))).toBeDefined();
  for (const file of ["../x", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "a\n"]) {
    expect(() => checkedMessage(message(file)), file).toThrow(refused);
  }
  for (const wrong of [
    { sha256: "xyz" },
    { headSha256: "xyz" },
    { headBytes: 4 },
    { ghash: sha256 },
  ]) {
    const checkpointWritten = { ...written, file: "a", headBytes: 1, headSha256: sha256, ...wrong };
    expect(() => checkedMessage({ kind: "checkpointWritten", checkpointWritten })).toThrow(refused);
  }
});

test("free texts lose what could rewrite a terminal, keep their lines, and have an end", () => {
  const message = `boom\n\tat x\u001b[2J\u0007\u202e${"y".repeat(10_000)}`;
  const failed = { generation: 1, step: 2, code: "no-such-code", message };
  const checked = checkedMessage({ kind: "failed", failed });
  expect(checked).toMatchObject({ failed: { code: "internal", generation: 1, step: 2 } });
  const text = checked.kind === "failed" ? checked.failed.message : "";
  expect(text.startsWith("boom\n\tat x?[2J??yyy")).toBe(true);
  expect(text.length).toBeLessThan(4_100);
  expect(checkedMessage({ kind: "goodbye", goodbye: { reason: "a\u001bb" } })).toEqual({
    kind: "goodbye",
    goodbye: { reason: "a?b" },
  });
  expect(plainText("größe, 大きさ 🦙")).toBe("größe, 大きさ 🦙");
});
