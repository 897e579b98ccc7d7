/** Back-pressure: how many of my bytes lie unread in Redis. Acknowledgements may get lost; then Redis itself is asked. */
import type { PaddockError } from "@paddock/contract";
import { ByteBudget, type WaitLimit } from "./byte-budget.js";
import type { PayloadRef } from "./payload-store.js";

/** After waiting so long for an acknowledgement, look whether the payloads are still there. */
const recheckMs = 1000;

export class InFlight {
  readonly #budget: ByteBudget;
  readonly #findUnread: (refs: readonly PayloadRef[]) => Promise<ReadonlySet<string>>;
  readonly #unread = new Map<string, PayloadRef>();

  constructor(
    limitBytes: number,
    findUnread: (refs: readonly PayloadRef[]) => Promise<ReadonlySet<string>>,
  ) {
    this.#budget = new ByteBudget(limitBytes);
    this.#findUnread = findUnread;
  }

  get bytes(): number {
    return this.#budget.usedBytes;
  }

  /** Resolves when `bytes` more may be sent: under the limit, or when nothing at all is in flight. */
  async reserve(bytes: number, limit: WaitLimit): Promise<void> {
    const timer = setInterval(() => {
      // A Redis that does not answer shows in the wait for the acknowledgement itself.
      this.#recheck().catch(() => undefined);
    }, recheckMs);
    try {
      await this.#budget.take(bytes, limit);
    } finally {
      clearInterval(timer);
    }
  }

  /** A reserved payload was not written. */
  release(bytes: number): void {
    this.#budget.give(bytes);
  }

  /** A reserved payload is in Redis; its ticket comes after this call, so that no acknowledgement can come before it. */
  sent(ref: PayloadRef): void {
    this.#unread.set(ref.name, ref);
  }

  /** A peer has read the payload of that name, or never will. */
  acknowledged(name: string): void {
    const ref = this.#unread.get(name);
    if (!ref) return;
    this.#unread.delete(name);
    this.#budget.give(ref.bytes);
  }

  close(reason: PaddockError): void {
    this.#budget.close(reason);
  }

  async #recheck(): Promise<void> {
    const refs = [...this.#unread.values()];
    const unread = await this.#findUnread(refs);
    for (const ref of refs) if (!unread.has(ref.name)) this.acknowledged(ref.name);
  }
}
