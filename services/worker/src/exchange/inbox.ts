/** Messages that arrive in fragments, in any order, some of them twice; whole ones go to a mailbox. */
import { PaddockError } from "@paddock/contract";
import type { WaitLimit } from "./byte-budget.js";
import { Mailbox } from "./mailbox.js";
import type { Sent } from "./tickets.js";

interface Message {
  /** On shared memory: the engine thread gets it without a copy. */
  readonly bytes: Uint8Array;
  /** Where the fragments start that have arrived or are on their way. */
  readonly begun: Set<number>;
  /** Fragments that are not complete yet. */
  missing: number;
}

export class Inbox {
  readonly #whole = new Mailbox<Uint8Array>();
  /** Also those that were taken: a fragment that comes again must not begin the message anew. */
  readonly #messages = new Map<string, Message | "whole">();

  /** Lets `read` fill in a fragment, unless it has been here before. Its failure is the message's. */
  async add(
    name: string,
    fragment: Sent,
    read: (target: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const message = this.#messages.get(name) ?? this.#begin(name, fragment);
    if (message === "whole" || message.begun.has(fragment.start)) return;
    message.begun.add(fragment.start);
    const end = fragment.start + fragment.payload.bytes;
    try {
      await read(message.bytes.subarray(fragment.start, end));
    } catch (thrown) {
      const error = PaddockError.from(thrown);
      this.#whole.fail(name, error);
      throw error;
    }
    message.missing -= 1;
    if (message.missing > 0) return;
    this.#messages.set(name, "whole");
    this.#whole.put(name, message.bytes);
  }

  take(name: string, limit: WaitLimit): Promise<Uint8Array> {
    return this.#whole.take(name, limit);
  }

  prune(isOld: (name: string) => boolean): void {
    this.#whole.prune(isOld);
    for (const name of this.#messages.keys()) if (isOld(name)) this.#messages.delete(name);
  }

  close(reason: PaddockError): void {
    this.#whole.close(reason);
    this.#messages.clear();
  }

  #begin(name: string, { bytes, fragments }: Sent): Message {
    const message: Message = {
      bytes: new Uint8Array(new SharedArrayBuffer(bytes)),
      begun: new Set(),
      missing: fragments,
    };
    this.#messages.set(name, message);
    return message;
  }
}
