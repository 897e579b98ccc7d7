import { expect, test } from "vitest";
import { decodeHeader, encodeHeader, headerBytes, maxHeaderBytes } from "./safetensors.js";

type Tensors = Parameters<typeof encodeHeader>[0];

const header = (fields: unknown): Buffer => Buffer.from(JSON.stringify(fields));
const f32 = (start: number, end: number, shape: unknown = [(end - start) / 4]) => ({
  dtype: "F32",
  shape,
  data_offsets: [start, end],
});

test("a header says what was encoded, and the data behind it begins at a multiple of 8", () => {
  const tensors: Tensors = new Map([
    ["a", { dtype: "F32", shape: [3, 2] }],
    ["empty", { dtype: "F32", shape: [0] }],
    ["b", { dtype: "U8", shape: [5] }],
    ["scalar", { dtype: "F16", shape: [] }],
  ] as const);
  const bytes = encodeHeader(tensors, { step: "7", note: "ünïcödé" });
  expect(bytes.length % 8).toBe(0);
  const json = bytes.subarray(8, 8 + headerBytes(bytes, bytes.length, "f"));
  const decoded = decodeHeader(json, bytes.length + 24 + 5 + 2, "f");
  expect(decoded.dataStart).toBe(bytes.length);
  expect(decoded.metadata).toEqual({ step: "7", note: "ünïcödé" });
  expect([...decoded.tensors]).toEqual([
    ["a", { dtype: "F32", shape: [3, 2], dataOffsets: [0, 24] }],
    ["empty", { dtype: "F32", shape: [0], dataOffsets: [24, 24] }],
    ["b", { dtype: "U8", shape: [5], dataOffsets: [24, 29] }],
    ["scalar", { dtype: "F16", shape: [], dataOffsets: [29, 31] }],
  ]);
});

test("the order of names in the header does not matter, also with empty tensors", () => {
  const fields = { b: f32(8, 16), empty: f32(8, 8), a: f32(0, 8) };
  const json = header(fields);
  expect(decodeHeader(json, 8 + json.length + 16, "f").tensors.size).toBe(3);
});

test("a length that is absurd, negative or longer than the file is refused before anything is allocated", () => {
  const lengthOf = (length: bigint): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(length);
    return bytes;
  };
  for (const length of [2n ** 64n - 1n, 2n ** 63n, BigInt(maxHeaderBytes) + 1n, 93n]) {
    expect(() => headerBytes(lengthOf(length), 100, "f")).toThrow(
      /f: expected a header of at most/,
    );
  }
  expect(headerBytes(lengthOf(92n), 100, "f")).toBe(92);
  expect(() => headerBytes(Buffer.alloc(5), 5, "f")).toThrow(/header/);
});

test.each([
  ["a gap", { a: f32(0, 8), b: f32(12, 16) }, 16],
  ["an overlap", { a: f32(0, 8), b: f32(4, 16) }, 16],
  ["data beyond the end", { a: f32(0, 8) }, 4],
  ["bytes that nobody owns", { a: f32(0, 8) }, 12],
  ["a shape of another size", { a: f32(0, 8, [3]) }, 8],
  ["a negative side", { a: f32(0, 8, [-2]) }, 8],
  ["a side that is no integer", { a: f32(0, 8, [2.5]) }, 8],
  ["offsets backwards", { a: f32(8, 0) }, 0],
  ["three offsets", { a: { dtype: "F32", shape: [2], data_offsets: [0, 8, 9] } }, 8],
  ["an unknown dtype", { a: { dtype: "F8", shape: [2], data_offsets: [0, 8] } }, 8],
  ["a dtype that objects have by nature", { a: { dtype: "toString", shape: [] } }, 0],
  ["a tensor that is null", { a: null }, 0],
  ["a header that is a list", [f32(0, 8)], 8],
  ["a header that is a number", 3, 0],
])("%s is refused", (_what, fields, dataBytes) => {
  const json = header(fields);
  expect(() => decodeHeader(json, 8 + json.length + dataBytes, "f")).toThrowError(
    expect.objectContaining({ code: "checkpoint-corrupt" }),
  );
});

test("a header that is not JSON is refused", () => {
  expect(() => decodeHeader(Buffer.from("{"), 9, "f")).toThrow(/f: expected a JSON header/);
});
