/** Back-pressure: how many of my bytes lie unread in Redis. Acknowledgements may get lost; then Redis itself is asked. */
import type { PayloadRef } from "./payload-store.js";

/** After waiting so long for an acknowledgement, look whether the payloads are still there. */
const recheckMs = 1000;

export class InFlight {
  readonly #limitBytes: number;
  readonly #findUnread: (refs: readonly PayloadRef[]) => Promise<Set<string>>;
  readonly #unread = new Map<string, PayloadRef>();
  #bytes = 0;
  #wake: (() => void)[] = [];

  constructor(
    limitBytes: number,
    findUnread: (refs: readonly PayloadRef[]) => Promise<Set<string>>,
  ) {
    this.#limitBytes = limitBytes;
    this.#findUnread = findUnread;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Resolves when `bytes` more may be sent: under the limit, or when nothing at all is in flight. */
  async reserve(bytes: number, signal: AbortSignal): Promise<void> {
    while (this.#bytes > 0 && this.#bytes + bytes > this.#limitBytes) {
      signal.throwIfAborted();
      const woken = await this.#nextChange();
      if (!woken) await this.#recheck();
    }
    this.#bytes += bytes;
  }

  /** A reserved payload is in Redis now. */
  sent(ref: PayloadRef): void {
    this.#unread.set(ref.name, ref);
  }

  /** Sending failed, before or after the payload was written. */
  cancelled(name: string, bytes: number): void {
    this.#unread.delete(name);
    this.#release(bytes);
  }

  /** A peer has read the payload of that name. */
  acknowledged(name: string): void {
    const ref = this.#unread.get(name);
    if (!ref) return;
    this.#unread.delete(name);
    this.#release(ref.bytes);
  }

  #release(bytes: number): void {
    this.#bytes -= bytes;
    this.#notify();
  }

  async #recheck(): Promise<void> {
    const refs = [...this.#unread.values()];
    const unread = await this.#findUnread(refs);
    for (const ref of refs) if (!unread.has(ref.name)) this.acknowledged(ref.name);
  }

  /** true: something changed; false: nothing did for a while. */
  #nextChange(): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), recheckMs);
      this.#wake.push(() => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
  }
}
