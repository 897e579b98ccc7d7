/**
 * Plain values as JSON and back without loss, for traces: what JSON does not know is tagged as `{"$": [tag, ...]}`, keys are sorted, so
 * that equal values give equal text.
 */
import { createHash } from "node:crypto";
import { hideSecret } from "./redis/redis-url.js";

const arrays = {
  Uint8Array,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
} as const;
type ArrayName = keyof typeof arrays;

type Tagged =
  | readonly ["number", string]
  | readonly ["undefined"]
  | readonly ["bigint", string]
  | readonly ["bytes", ArrayName, string]
  | readonly ["object", Readonly<Record<string, unknown>>];

/**
 * The value as `JSON.stringify` takes it. Typed arrays are base64 of their bytes; Node's Buffer is taken for a Uint8Array. The password
 * in a property `redisUrl` is left out.
 * @throws TypeError for what is no plain value: functions, symbols, instances of classes
 */
export function toJson(value: unknown): unknown {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0) ? value : tag("number", nameOf(value));
    case "undefined":
      return tag("undefined");
    case "bigint":
      return tag("bigint", String(value));
    case "object":
      return value === null ? null : objectToJson(value);
    default:
      throw new TypeError(`expected a plain value, received a ${typeof value}`);
  }
}

/** The value of which `toJson` made `json`. */
export function fromJson(json: unknown): unknown {
  if (typeof json !== "object" || json === null) return json;
  if (Array.isArray(json)) return json.map(fromJson);
  if (Object.hasOwn(json, "$")) return untagged((json as { $: Tagged }).$);
  return mapValues(json as Record<string, unknown>, fromJson);
}

/** The first 16 hexadecimal digits of the SHA-256 of the value's JSON. */
export function digestOf(value: unknown): string {
  const text = JSON.stringify(toJson(value));
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function tag(...tagged: Tagged): { readonly $: Tagged } {
  return { $: tagged };
}

/** JSON has no minus zero either. */
function nameOf(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function objectToJson(value: object): unknown {
  if (Array.isArray(value)) return value.map(toJson);
  if (ArrayBuffer.isView(value)) return bytesToJson(value);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError(`expected a plain value, received a ${value.constructor.name}`);
  }
  const record = value as Record<string, unknown>;
  const json = mapValues(record, (item, key) =>
    key === "redisUrl" && typeof item === "string" ? hideSecret(item) : toJson(item),
  );
  return Object.hasOwn(record, "$") ? tag("object", json) : json;
}

function bytesToJson(view: ArrayBufferView): unknown {
  const name = view instanceof Uint8Array ? "Uint8Array" : view.constructor.name;
  if (!Object.hasOwn(arrays, name)) throw new TypeError(`a ${name} cannot be traced`);
  const bytes = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  return tag("bytes", name as ArrayName, bytes.toString("base64"));
}

function untagged(tagged: Tagged): unknown {
  switch (tagged[0]) {
    case "number":
      return Number(tagged[1]);
    case "undefined":
      return undefined;
    case "bigint":
      return BigInt(tagged[1]);
    case "bytes":
      // Copied: a Buffer's bytes may lie anywhere, a Float64Array's only at multiples of 8.
      return new arrays[tagged[1]](new Uint8Array(Buffer.from(tagged[2], "base64")).buffer);
    case "object":
      return mapValues(tagged[1], fromJson);
  }
}

/** With sorted keys; `__proto__` is a key like any other. */
function mapValues(
  record: Readonly<Record<string, unknown>>,
  map: (value: unknown, key: string) => unknown,
): Record<string, unknown> {
  const keys = Object.keys(record).sort();
  return Object.fromEntries(keys.map((key) => [key, map(record[key], key)]));
}
