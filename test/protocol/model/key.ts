/**
 * A world as a short text: equal for worlds that behave alike. Every part gets a number by its content, found again by identity, so
 * a step costs as much as it changes. Left out: what no decision depends on (counters, texts, times of day). Times count only as
 * to come, within a lease, or past it.
 */
import type { World } from "./world.js";

/** Fields on which nothing depends. */
const ignored = new Set([
  "spec",
  "layout",
  "counters",
  "recent",
  "lastStep",
  "watch",
  "alert",
  "engine",
  "lastFailure",
  "checkpointSeconds",
  "unixMs",
  "createdUnixMs",
  "startMs",
  "sinceMs",
  "firstStartMs",
  "lastCommitMs",
  "reason",
  "message",
  "facts",
  "hello",
  "welcome",
  "attempts",
  "peers",
  "segmentQueue",
  "losses",
  "monitors",
  "normRoots",
  "seconds",
  "gradNorm",
  "phase",
  "host",
  "pid",
  "device",
  "manifest",
  "sha256",
  "bytes",
  "parameters",
  "units",
  "evaluations",
]);

export class Keys {
  readonly #ids = new Map<string, number>();
  readonly #known = new WeakMap<object, { readonly now: number; readonly id: number }>();
  readonly #leaseMs: number;

  constructor(leaseMs: number) {
    this.#leaseMs = leaseMs;
  }

  of(world: World): string {
    const { now, coordinator, ledger, manifests, jobs, workers, sessions, faultsLeft, history } =
      world;
    const parts = [
      coordinator ? this.#id(coordinator, now) : 0,
      this.#id(ledger, now),
      this.#id(manifests, now),
      jobs ? this.#id(jobs, now) : 0,
      faultsLeft,
      this.#id(history.faults, now),
      ...workers.map((worker) => this.#id(worker, now)),
      ...sessions.map((session) => this.#id(session, now)),
    ];
    let key = "";
    for (const part of parts) key += String.fromCharCode(part & 0xffff, part >>> 16);
    return key;
  }

  #id(value: object, now: number): number {
    const known = this.#known.get(value);
    if (known?.now === now) return known.id;
    const text = this.#text(value, now);
    const id = this.#ids.get(text) ?? this.#ids.size + 1;
    this.#ids.set(text, id);
    this.#known.set(value, { now, id });
    return id;
  }

  #text(value: object, now: number): string {
    if (Array.isArray(value)) {
      return `[${value.map((item) => this.#item("", item, now)).join()}]`;
    }
    let text = "";
    for (const [name, item] of Object.entries(value)) {
      if (!ignored.has(name)) text += `${name}:${this.#item(name, item, now)};`;
    }
    return text;
  }

  #item(name: string, item: unknown, now: number): string | number {
    if (typeof item === "object" && item !== null) return `#${this.#id(item, now)}`;
    if (typeof item === "number" && name.endsWith("Ms")) return this.#time(item, now);
    return String(item);
  }

  #time(at: number, now: number): string {
    if (at === Number.POSITIVE_INFINITY) return "never";
    if (at > now) return "later";
    return now - at > this.#leaseMs ? "past" : "now";
  }
}
