/** Several workers' steps in one process. */
import { invariant } from "@paddock/contract";
import type { StepHost } from "../step.js";

/** Delivers messages between runners in memory. */
export class Mailroom {
  readonly #mail = new Map<string, Uint8Array>();
  readonly #waiting = new Map<string, (payload: Uint8Array) => void>();
  readonly published = new Map<string, Map<string, Uint8Array>>();
  /** What each worker asked for, in its order. */
  readonly collectives: string[][] = [];

  put(key: string, payload: Uint8Array): void {
    const waiting = this.#waiting.get(key);
    if (waiting) {
      this.#waiting.delete(key);
      waiting(payload);
    } else this.#mail.set(key, payload);
  }

  take(key: string): Promise<Uint8Array> {
    const payload = this.#mail.get(key);
    this.#mail.delete(key);
    if (payload) return Promise.resolve(payload);
    return new Promise((resolve) => this.#waiting.set(key, resolve));
  }

  hostOf(worker: number, workers: number): StepHost {
    const collectives: string[] = [];
    this.collectives[worker] = collectives;
    const all = Array.from({ length: workers }, (_, peer) => peer);
    const byPeer = async (
      expectedBytes: readonly number[],
      get: (peer: number) => Uint8Array | Promise<Uint8Array>,
    ): Promise<Uint8Array[]> => {
      const got = await Promise.all(
        all.map((peer) => (peer === worker ? new Uint8Array(0) : get(peer))),
      );
      for (const peer of all) {
        invariant(
          peer === worker || got[peer]?.byteLength === expectedBytes[peer],
          `what worker ${peer} sends has the expected size`,
        );
      }
      return got;
    };
    return {
      fetchUnit: (step, { part, expectedBytes, everyone }) => {
        invariant(everyone, "all workers gather together");
        collectives.push(`${step} ${part}`);
        const partOf = (peer: number) => this.published.get(String(peer))?.get(part) as Uint8Array;
        return byPeer(expectedBytes, partOf);
      },
      allToAll: (step, key, outgoing, expectedBytes) => {
        collectives.push(`${step} ${key}`);
        for (const peer of all) {
          const payload = (outgoing[peer] as Uint8Array).slice();
          if (peer !== worker) this.put(`${step} ${key} ${worker}>${peer}`, payload);
        }
        return byPeer(expectedBytes, (peer) => this.take(`${step} ${key} ${peer}>${worker}`));
      },
      phase: () => undefined,
    };
  }
}
